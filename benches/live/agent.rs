//! A host agent for each core: measures cores and instances and reports them once a second.

use std::cell::RefCell;
use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Heartbeats come so often.
const PERIOD: Duration = Duration::from_secs(1);
/// Ticks per second in `/proc`.
const TICKS: f64 = 100.0;

/// An instance as its agent knows it.
#[derive(Clone, Debug)]
pub struct Known {
    pub pid: u32,
    pub core: usize,
    pub port: u16,
}

/// Tells the router about an instance of an app, with the strategy that its route asks for.
pub async fn register(admin: SocketAddr, app: &str, strategy: &str, instance: &Known) -> std::io::Result<()> {
    let message = format!(
        r#"{{"host":"127.0.0.1","port":{port},"uris":["{app}.test"],"app":"{app}","private_instance_id":"{app}-{port}",
        "dea":"core-{}","options":{{"loadbalancing":"{strategy}"}}}}"#,
        instance.core,
        port = instance.port
    );
    publish(admin, "router.register", message).await
}

/// Reports as long as it is let.
pub async fn report(admin: SocketAddr, instances: Vec<Known>, app: Rc<RefCell<String>>) -> std::io::Result<()> {
    let mut ticks = tokio::time::interval(PERIOD);
    let (mut seq, mut before) = (0, Vec::<f64>::new());
    loop {
        ticks.tick().await;
        seq += 1;
        let now: Vec<f64> = instances.iter().map(|i| cpu_of_process(i.pid)).chain((0..2).map(busy_of_core)).collect();
        let shares: Vec<f64> = now.iter().zip(&before).map(|(now, before)| (now - before).clamp(0.0, 1.0)).collect();
        before = now;
        let name = app.borrow().clone();
        if shares.is_empty() || name.is_empty() {
            continue;
        }
        for core in 0..2 {
            let its = instances.iter().zip(&shares).filter(|(instance, _)| instance.core == core);
            let droplets = its.map(|(instance, share)| {
                format!(
                    r#"{{"droplet":"{name}","private_instance_id":"{name}-{}","index":0,"state":"RUNNING","load":{{"cpu":{share:.3},"mem":0.3}}}}"#,
                    instance.port
                )
            });
            let message = format!(
                r#"{{"dea":"core-{core}","schema":1,"seq":{seq},"boot_id":"1","interval_ms":1000,"host":{{"ip":"127.0.0.1","load":{{"cpu":{:.3},"mem":0.3}}}},"droplets":[{}]}}"#,
                shares[instances.len() + core],
                droplets.collect::<Vec<_>>().join(",")
            );
            publish(admin, "dea.heartbeat", message).await?;
        }
    }
}

async fn publish(admin: SocketAddr, subject: &str, message: String) -> std::io::Result<()> {
    let other = |error: hyper::Error| std::io::Error::other(error);
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
    tokio::task::spawn_local(connection);
    let request = http::Request::post(format!("/v1/bus/{subject}")).header("host", "admin");
    let request = request.body(Full::new(Bytes::from(message))).map_err(std::io::Error::other)?;
    let status = sender.send_request(request).await.map_err(other)?.status();
    if status.is_success() { Ok(()) } else { Err(std::io::Error::other(format!("{subject}: {status}"))) }
}

/// CPU seconds so far.
fn cpu_of_process(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS
}

/// Seconds that a core was not idle.
fn busy_of_core(core: usize) -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find(|line| line.starts_with(&format!("cpu{core} "))).unwrap_or("");
    let ticks: Vec<f64> = line.split(' ').skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal: all but the two in the middle.
    ticks.iter().take(8).sum::<f64>() / TICKS - ticks.iter().skip(3).take(2).sum::<f64>() / TICKS
}
