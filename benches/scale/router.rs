//! The router under load, as a process of its own, and what can be seen of it from outside.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A child that ends when this is dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// On its own core, its output in a file; it ends with the bench, however that ends.
pub fn spawn(core: usize, program: &str, arguments: &[&str], output: &Path) -> io::Result<Process> {
    let output = std::fs::File::create(output)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string(), program]).args(arguments);
    command.stdin(Stdio::null());
    let child = command.stdout(output.try_clone()?).stderr(output).spawn();
    Ok(Process(child.map_err(|problem| io::Error::other(format!("this needs `setpriv`: {problem}")))?))
}

/// An address on loopback that was free a moment ago.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// A running router.
pub struct Router {
    pub process: Process,
    pub http: SocketAddr,
    pub admin: SocketAddr,
}

impl Router {
    /// This program, with these settings beside a worker for its core and no access log.
    pub fn start(program: &str, core: usize, settings: &str, dir: &Path) -> io::Result<Router> {
        let (http, admin) = (free_address()?, free_address()?);
        let file = dir.join("weighbridge.toml");
        let config = format!(
            "workers = 1\nhttp.listen = [\"{http}\"]\nadmin.listen = \"{admin}\"\naccess_log.path = \"\"\n{settings}\n"
        );
        std::fs::write(&file, config)?;
        let file = file.display().to_string();
        let process = spawn(core, program, &["run", "--config", &file], &dir.join("weighbridge.out"))?;
        Ok(Router { process, http, admin })
    }
}

/// A connection of HTTP/1 that lives on this thread.
pub async fn connect(address: SocketAddr) -> io::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// The status of a GET.
pub async fn get(connection: &mut SendRequest<Empty<Bytes>>, host: &str) -> io::Result<u16> {
    let request = http::Request::get("/").header("host", host).body(Empty::new()).map_err(io::Error::other)?;
    connection.ready().await.map_err(io::Error::other)?;
    let response = connection.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    response.into_body().collect().await.map_err(io::Error::other)?;
    Ok(status)
}
