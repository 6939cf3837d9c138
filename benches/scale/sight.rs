//! What can be seen of a router from outside: memory, CPU time, metrics.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};

use super::router::{Router, connect};

impl Router {
    /// Memory in use.
    pub fn resident_bytes(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) * 1024.0
    }

    /// CPU seconds that the control threads have had so far.
    pub fn control_seconds(&self) -> f64 {
        let tasks = format!("/proc/{}/task", self.process.0.id());
        let mut sum = 0.0;
        for task in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            if read("comm").trim() == "control" {
                sum += read("schedstat").split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9;
            }
        }
        sum
    }

    /// The sum of a metric over its labels; nothing while the admin port does not answer.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let mut admin = connect(self.admin).await.ok()?;
        let request = http::Request::get("/metrics").header("host", "admin").body(Empty::<Bytes>::new()).ok()?;
        let body = admin.send_request(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let series = text.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' ']));
        Some(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Endpoints in the table.
    pub async fn endpoints(&self) -> usize {
        self.metric("weighbridge_endpoints").await.unwrap_or(0.0) as usize
    }
}
