//! Whose behaviour to keep where Weighbridge differs on purpose: the one table of what `compat = "gorouter"` changes.

use super::reader::Reader;

/// Whose behaviour to keep where Weighbridge differs on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compat {
    /// Weighbridge's own.
    #[default]
    None,
    /// gorouter's: its defaults where keys are not written, and its words in errors.
    Gorouter,
}

/// A key whose default `compat = "gorouter"` changes.
pub(super) struct Difference {
    /// Dotted.
    pub(super) key: &'static str,
    /// gorouter's behaviour, as TOML.
    pub(super) gorouter: &'static str,
    /// Why Weighbridge does otherwise.
    pub(super) reason: &'static str,
}

/// Every key with a default of its own under `compat = "gorouter"`.
pub(super) const DIFFERENCES: &[Difference] = &[
    Difference {
        key: "timeout_status",
        gorouter: "502",
        reason: "504 is the status for an answer that did not come in time; 502 is for one that is broken.",
    },
    Difference {
        key: "http.health_check_agent",
        gorouter: "\"HTTP-Monitor/1.1\"",
        reason: "Health is a matter of the admin port; any client can choose its `User-Agent`.",
    },
    Difference {
        key: "table.keep_empty",
        gorouter: "\"0s\"",
        reason: "An app whose last instance is restarting is unavailable (503), not unknown (404).",
    },
    Difference {
        key: "table.expire_tls_endpoints",
        gorouter: "false",
        reason: "What is not registered again is gone, with TLS or without.",
    },
    Difference {
        key: "balance.strategy",
        gorouter: "\"round-robin\"",
        reason: "Instances differ in how busy they are, so they get requests by load.",
    },
    Difference {
        key: "limits.head_bytes",
        gorouter: "\"1MiB\"",
        reason: "A megabyte of headers is an attack more often than a request.",
    },
    Difference { key: "limits.head_count", gorouter: "512", reason: "So are thousands of headers." },
    Difference {
        key: "forwarded.proto",
        gorouter: "\"keep\"",
        reason: "Who is not trusted cannot say that a connection was secure.",
    },
    Difference {
        key: "forwarded.client_cert",
        gorouter: "\"always_forward\"",
        reason: "Nor which certificate was shown.",
    },
    Difference {
        key: "forwarded.x_forwarded_host",
        gorouter: "false",
        reason: "Frameworks build links from it when something rewrites `Host` on the way.",
    },
    Difference {
        key: "timeouts.client_idle",
        gorouter: "\"900s\"",
        reason: "Connections that nobody has used for a minute cost more than they save, unless a load balancer keeps them.",
    },
    Difference {
        key: "timeouts.connect",
        gorouter: "\"5s\"",
        reason: "An instance that does not take a connection in two seconds will not; another one is asked.",
    },
    Difference { key: "timeouts.tls_handshake", gorouter: "\"10s\"", reason: "The same with TLS." },
    Difference { key: "tracing.w3c", gorouter: "false", reason: "A trace that ends at the router helps nobody." },
    Difference {
        key: "access_log.format",
        gorouter: "\"gorouter\"",
        reason: "JSON can be read without knowing the order of fields, and says how each request ended.",
    },
];

/// What changes beside the defaults of keys, and what does not.
pub(super) const WORDS: &str = "Besides, errors of the router read as gorouter's, such as `404 Not Found: Requested route \
('app.example.com') does not exist.`, whatever `Accept` prefers. Headers of errors stay as they are.

What stays different, whatever `compat` says:

| Weighbridge | gorouter | why |
|---|---|---|
| A registration without `host` is rejected (`missing_host`). | It is taken, and points nowhere. | It could not be served. |
| Ambiguous framing, such as `Content-Length` beside `Transfer-Encoding`, is refused with 400. | It is repaired. | Two parsers \
may repair it in two ways; that is how requests are smuggled. |
| Leases do not run out while the bus is away, and count afresh when it is back. | They do, unless \
`suspend_pruning_if_nats_unavailable`. | Nobody could report. |
| Requests to routes with a `route_service_url` get 502 `route_service_unsupported`. | They pass the route service. | It is not \
built; going straight to the instance could pass by what guards it. |
| Errors carry `X-Weighbridge-Error` as well. | | Its values are stable words. |
| Connections to instances are kept (`timeouts.upstream_idle`). | Not unless `disable_keep_alives` is turned off. | A handshake per \
request costs more than the request. |
| TLS 1.3 is spoken. | Not unless `max_tls_version` says so. | It is faster and safer. |
| Registrations are gathered before serving only if `table.prime_for` says so. | Five seconds. | The contract of the key; set it. |";

impl Compat {
    /// The default of `key` (dotted) as TOML, where it is not Weighbridge's own.
    pub(super) fn default_of(self, key: &str) -> Option<&'static str> {
        match self {
            Compat::None => None,
            Compat::Gorouter => DIFFERENCES.iter().find(|difference| difference.key == key).map(|d| d.gorouter),
        }
    }
}

/// Reads `compat`; what is read after it falls back to the defaults that belong to it.
pub(super) fn read(top: &mut Reader<'_, '_>) -> Compat {
    let compat = top.choice("compat", &[("none", Compat::None), ("gorouter", Compat::Gorouter)]);
    top.context.compat = compat;
    compat
}
