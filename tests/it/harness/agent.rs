//! Host agents: they report their instances in heartbeats.

use serde_json::{Value, json};

use super::bus::Bus;
use super::instance::Instance;

/// One host agent.
pub struct Agent {
    id: String,
    boot: String,
    seq: u64,
    host_load: Value,
}

/// An agent that has just booted.
pub fn called(id: &str) -> Agent {
    let boot = format!("{id}-boot-1");
    Agent { id: id.to_owned(), boot, seq: 0, host_load: json!({}) }
}

impl Agent {
    /// Its host is that busy.
    pub fn with_host(mut self, cpu: f64, mem: f64) -> Agent {
        self.host_load = json!({"cpu": cpu, "mem": mem});
        self
    }

    /// A heartbeat with all its instances running, each as busy as said: (instance, cpu, mem).
    pub async fn reports(&mut self, instances: &[(&Instance, f64, f64)], bus: &Bus) {
        let droplets = instances
            .iter()
            .map(|(instance, cpu, mem)| instance.droplet("RUNNING", &json!({"cpu": cpu, "mem": mem})))
            .collect();
        self.says(droplets, bus).await;
    }

    /// A heartbeat with these droplets.
    pub async fn says(&mut self, droplets: Vec<Value>, bus: &Bus) {
        self.seq += 1;
        let heartbeat = json!({
            "dea": self.id, "schema": 2, "seq": self.seq, "boot_id": self.boot, "sent_at": "2026-11-21T10:00:00Z",
            "interval_ms": 5000,
            "host": {"ip": "127.0.0.1", "zone": "z1", "load": self.host_load},
            "droplets": droplets,
        });
        bus.publish("dea.heartbeat", &heartbeat).await;
    }
}
