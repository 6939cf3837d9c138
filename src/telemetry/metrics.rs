//! Every metric of the router: its name, meaning and labels are in the list below and nowhere else.
//!
//! Workers count in a [`Shard`] each, the control plane in [`Control`]; facts about routes are read from the snapshot.
//! All of it meets in [`Metrics::text`], when somebody asks.

mod control;
mod count;
mod exposition;
mod gather;
mod process;
mod reference;
mod shard;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

pub use control::Control;
pub use exposition::CONTENT_TYPE;
pub use reference::markdown;
pub use shard::{Finished, OpenUpstream, Shard, Sticky};

use super::access_log::LogCounts;
use shard::Slots;
use table::Named;

/// What kind of numbers a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times in buckets.
    Histogram,
}

/// One metric: its series differ in the values of its labels.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// `weighbridge_…`, or `process_…` for what every Prometheus client calls so.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(const $constant: &Family = &Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All families, in the order of the exposition.
        pub const FAMILIES: &[&Family] = &[$($constant),*];
    };
}

families! {
    REQUESTS: Counter "weighbridge_requests_total" ["code"]
        "Requests ended, by status sent to the client; 499 is a client that went away before it was answered.";
    REQUESTS_IN_FLIGHT: Gauge "weighbridge_requests_in_flight" []
        "Requests being served, to the end of the response body or tunnel.";
    REQUEST_DURATION: Histogram "weighbridge_request_duration_seconds" ["class"]
        "Time from the request head read to the end of the response, by status class; tunnels are in 1xx.";
    TIME_TO_FIRST_BYTE: Histogram "weighbridge_time_to_first_byte_seconds" ["class"]
        "Time from the request head read to the first byte of the response head written, by status class.";
    UPSTREAM_RESPONSE: Histogram "weighbridge_upstream_response_seconds" ["class"]
        "Time an instance took from the request sent to its response head, by status class.";
    REQUEST_BYTES: Counter "weighbridge_request_body_bytes_total" []
        "Bytes of request bodies received from clients.";
    RESPONSE_BYTES: Counter "weighbridge_response_body_bytes_total" []
        "Bytes of response bodies sent to clients.";
    ROUTER_ERRORS: Counter "weighbridge_router_errors_total" ["error"]
        "Answers made by the router because no instance could, by the value of X-Weighbridge-Error.";
    REFUSED: Counter "weighbridge_refused_total" ["reason"]
        "Connections and requests of clients refused: malformed, ambiguous, or over a limit.";
    RESPONSES_REFUSED: Counter "weighbridge_responses_refused_total" ["reason"]
        "Responses of instances refused: malformed, ambiguous, or over a limit.";
    CONNECTIONS: Counter "weighbridge_connections_total" []
        "Connections accepted from clients.";
    CONNECTIONS_OPEN: Gauge "weighbridge_connections_open" []
        "Connections of clients that are open.";
    HTTP2_RESETS: Counter "weighbridge_http2_resets_total" ["code"]
        "Streams of HTTP/2 that the router reset, towards clients and instances, by error code.";
    HTTP2_GOAWAYS: Counter "weighbridge_http2_goaways_total" ["code"]
        "Connections of HTTP/2 that the router ended, by error code; no_error is an ordinary goodbye.";
    ACCEPTS_FAILED: Counter "weighbridge_accepts_failed_total" ["reason"]
        "Times that no connection could be accepted; no_descriptor: the process was out of file descriptors.";
    TLS_FAILED: Counter "weighbridge_tls_handshakes_failed_total" ["reason"]
        "TLS handshakes with clients that failed.";
    TLS_LOADED: Counter "weighbridge_tls_loads_total" []
        "Times that changed certificates and other files of TLS were put in force.";
    TLS_REJECTED: Counter "weighbridge_tls_files_rejected_total" []
        "Changed files of TLS that could not be used; what was read before stayed in force.";
    TUNNELS: Counter "weighbridge_tunnels_total" []
        "Connections upgraded to tunnels (WebSocket and others).";
    TUNNELS_OPEN: Gauge "weighbridge_tunnels_open" []
        "Tunnels that are open.";
    UPSTREAM_CONNECT: Histogram "weighbridge_upstream_connect_seconds" []
        "Time to connect to an instance, with the TLS handshake if there is one.";
    UPSTREAM_CONNECT_FAILED: Counter "weighbridge_upstream_connects_failed_total" ["cause"]
        "Connections to instances that could not be made.";
    UPSTREAM_REUSED: Counter "weighbridge_upstream_reuses_total" []
        "Requests sent on a kept connection to an instance.";
    UPSTREAM_OPEN: Gauge "weighbridge_upstream_connections_open" []
        "Connections to instances that are open, busy or kept.";
    ATTEMPTS_FAILED: Counter "weighbridge_attempts_failed_total" ["cause"]
        "Attempts to have a request answered that failed, whether or not another followed.";
    RETRIES: Counter "weighbridge_retries_total" ["reason"]
        "Attempts made after a failed one.";
    RETRIES_DENIED: Counter "weighbridge_retries_denied_total" []
        "Attempts not made because the retry budget was spent.";
    STICKY: Counter "weighbridge_sticky_requests_total" ["result"]
        "Requests of pinned sessions: hit (their instance took them), moved (another had to), new (pinned now).";
    EJECTIONS: Counter "weighbridge_ejections_total" []
        "Instances left out for a while because they kept failing.";
    OBSERVATIONS_DROPPED: Counter "weighbridge_observations_dropped_total" []
        "Observations of workers that the control plane was too busy to take.";
    WORKERS: Gauge "weighbridge_workers" []
        "Data-plane threads.";

    ACCESS_LOG_RECORDS: Counter "weighbridge_access_log_records_total" []
        "Access log records written.";
    ACCESS_LOG_DROPPED: Counter "weighbridge_access_log_dropped_total" []
        "Access log records lost because the disk or pipe behind it was too slow or failed.";

    APPS: Gauge "weighbridge_apps" ["state"]
        "Apps that have an instance or sleep, by state.";
    APP_SLEEPS: Counter "weighbridge_app_sleeps_total" []
        "Times that an app fell asleep.";
    APP_START_FAILURES: Counter "weighbridge_app_start_failures_total" []
        "Sleeping apps that could not be started, after all tries. An operator wants to hear of these.";
    APP_WAKE_TIME: Histogram "weighbridge_app_wake_seconds" []
        "Time from the first visit of a sleeping app until an instance answered.";
    APP_WAKES: Counter "weighbridge_app_wakes_total" ["reason"]
        "Apps that woke up: visited (somebody had asked for them) or started (nobody had).";
    APP_IGNORED: Counter "weighbridge_app_news_ignored_total" ["reason"]
        "News about sleeping apps that had no effect: stale, repeated, out_of_place, leaving (a last sign of life), too_many.";
    APP_HELD: Counter "weighbridge_app_requests_held_total" []
        "Requests that waited for a sleeping app.";
    APP_WAITING: Gauge "weighbridge_app_requests_waiting" []
        "Requests that wait for a sleeping app now.";
    APP_REFUSED: Counter "weighbridge_app_requests_refused_total" ["reason"]
        "Requests for sleeping apps answered 503: too_many waiting, waited too_long, the start failed, or their sender is ignored.";

    ROUTES: Gauge "weighbridge_routes" []
        "Routes in the table.";
    ENDPOINTS: Gauge "weighbridge_endpoints" ["state"]
        "Endpoints of all routes, by state; an instance with several routes counts once for each.";
    ROUTE_REQUESTS: Counter "weighbridge_route_requests_total" ["route", "class"]
        "Requests ended, by route and status class; routes beyond the limit are counted together as \"other\".";

    BUS_CONNECTED: Gauge "weighbridge_bus_connected" []
        "1 while the bus is connected and subscribed.";
    BUS_CONNECTS: Counter "weighbridge_bus_connects_total" []
        "Times the bus was connected; beyond the first they are reconnects.";
    BUS_FAILURES: Counter "weighbridge_bus_failures_total" []
        "Attempts to connect to the bus that failed, and connections to it that broke.";
    BUS_RECEIVED: Counter "weighbridge_bus_messages_received_total" ["subject"]
        "Messages understood.";
    BUS_REJECTED: Counter "weighbridge_bus_messages_rejected_total" ["subject", "reason"]
        "Messages dropped whole because they were malformed.";
    BUS_SENT: Counter "weighbridge_bus_messages_sent_total" []
        "Messages given to the bus.";
    BUS_DROPPED: Counter "weighbridge_bus_messages_dropped_total" ["reason"]
        "Messages lost between the bus and the control plane: full queues, oversized ones, no connection to send on.";
    ENDPOINTS_REMOVED: Counter "weighbridge_endpoints_removed_total" ["reason"]
        "Endpoints taken out of the table, by reason; pruned is a lease that ran out.";
    HEARTBEAT_AGE: Histogram "weighbridge_heartbeat_age_seconds" []
        "Age that the last heartbeat of a host agent had reached when the next one arrived.";
    REGISTRATION_LATENCY: Histogram "weighbridge_registration_latency_seconds" []
        "Time from an endpoint's own time stamp to its being routable.";
    WAKE_ASKS: Counter "weighbridge_wake_asks_total" ["outcome"]
        "Asks to start an app: started (taken on), refused, or elsewhere (another router is at it).";
    MEMORY_SHARED: Gauge "weighbridge_memory_shared" []
        "1 while routers share sleeping apps and starts through JetStream.";
    MEMORY_WRITES: Counter "weighbridge_memory_writes_total" ["result"]
        "Entries of sleeping apps brought in order in JetStream: done, failed (tried again), refused (the app's id is no key), dropped (too many at once).";
    SNAPSHOT_PUBLISH: Histogram "weighbridge_snapshot_publish_seconds" []
        "Time to make and publish a snapshot of the table.";

    BUILD_INFO: Gauge "weighbridge_build_info" ["version"]
        "Always 1; the label tells the version.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "CPU time of the process, user and system.";
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" []
        "Memory of the process that is in RAM.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
        "Address space of the process.";
    PROCESS_FDS: Gauge "process_open_fds" []
        "Open file descriptors.";
    PROCESS_FDS_MAX: Gauge "process_max_fds" []
        "Limit of open file descriptors.";
    PROCESS_THREADS: Gauge "process_threads" []
        "Threads of the process.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "Start of the process, in seconds since 1970.";
}

/// What the bus counts for itself.
#[derive(Clone, Debug, Default)]
pub struct BusCounts {
    /// Whether it is connected and subscribed.
    pub connected: bool,
    /// Times it was connected.
    pub connects: u64,
    /// Attempts to connect that failed, and connections that broke.
    pub failures: u64,
    /// Messages given to the server.
    pub sent: u64,
    /// Messages lost, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// All counters of the process.
#[derive(Debug)]
pub struct Metrics {
    shards: Mutex<Vec<Arc<Slots>>>,
    routes_max: usize,
    named: Mutex<Named>,
    /// Those of the control plane.
    pub control: Control,
    /// Those of the access log, which counts for itself.
    pub access_log: Arc<LogCounts>,
}

impl Metrics {
    /// Starts all at zero; at most `routes_max` routes get series of their own.
    pub fn new(routes_max: usize) -> Arc<Metrics> {
        Arc::new(Metrics {
            shards: Mutex::default(),
            routes_max,
            named: Mutex::default(),
            control: Control::default(),
            access_log: Arc::default(),
        })
    }

    /// Counters for one more worker, made on its own thread. What it counted stays when it is gone.
    pub fn shard(&self) -> Shard {
        let slots = Arc::new(Slots::new());
        self.shards.lock().push(slots.clone());
        Shard::new(slots)
    }
}
