//! What an instance does about a request, step by step.

use std::time::Duration;

use tokio::sync::watch;

/// A door that steps wait behind until the test opens it.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed one.
    pub fn closed() -> Gate {
        Gate(watch::Sender::new(false))
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits for it to be open.
    pub async fn passed(&self) {
        let mut door = self.0.subscribe();
        let opened = door.wait_for(|open| *open).await;
        opened.expect("the sender is in our own hands");
    }
}

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// These bytes, as they are.
    Write(Vec<u8>),
    /// So many bytes of the pattern, as the socket takes them.
    WritePattern(u64),
    /// Wait for time to pass: only where the time itself is what is tested.
    Wait(Duration),
    /// Wait for the test, and notice if the connection ends meanwhile.
    Pass(Gate),
    /// Wait for the test without reading anything.
    PassBlindly(Gate),
    /// Read the body of the request now.
    ReadBody,
    /// Go on with bytes in both directions: what comes in goes out again.
    EchoBytes,
    /// Close the connection.
    Close,
    /// Reset the connection.
    Reset,
    /// Neither answer nor close.
    Hang,
}

/// Steps in order. The body of the request is read before the first of them unless the
/// instance was told to answer early.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// What is done.
    pub steps: Vec<Step>,
}

impl Answer {
    /// No steps yet.
    pub fn new() -> Answer {
        Answer::default()
    }

    /// One more step.
    pub fn then(mut self, step: Step) -> Answer {
        self.steps.push(step);
        self
    }

    /// These bytes.
    pub fn write(self, bytes: impl AsRef<[u8]>) -> Answer {
        self.then(Step::Write(bytes.as_ref().to_vec()))
    }

    /// Then waits for `gate` to open.
    pub fn until(self, gate: &Gate) -> Answer {
        self.then(Step::Pass(gate.clone()))
    }

    /// Then waits for `gate` to open, without looking at what comes in meanwhile.
    pub fn blindly_until(self, gate: &Gate) -> Answer {
        self.then(Step::PassBlindly(gate.clone()))
    }

    /// The same steps, once `gate` is open.
    pub fn behind(mut self, gate: &Gate) -> Answer {
        self.steps.insert(0, Step::Pass(gate.clone()));
        self
    }

    /// The same steps, later.
    pub fn after(mut self, delay: Duration) -> Answer {
        self.steps.insert(0, Step::Wait(delay));
        self
    }
}

/// A response with a body of known length.
pub fn status(code: u16, body: &str) -> Answer {
    with_fields(code, &[], body)
}

/// A response with fields of its own and a body of known length.
pub fn with_fields(code: u16, fields: &[(&str, &str)], body: &str) -> Answer {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Answer::new().write(format!("HTTP/1.1 {code} Because\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// A 200 whose chunks come in one write each, with trailers.
pub fn chunked(chunks: &[&str], trailers: &[(&str, &str)]) -> Answer {
    let mut answer = Answer::new().write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for chunk in chunks {
        answer = answer.write(format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    let trailers: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    answer.write(format!("0\r\n{trailers}\r\n"))
}

/// A 200 with `length` bytes of the pattern.
pub fn pattern(length: u64) -> Answer {
    Answer::new().write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).then(Step::WritePattern(length))
}
