//! A program of this machine starts the app. It runs without a shell, within a time limit, few at once; what it writes is
//! cut into the log.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{NotStarted, Task};
use crate::config::CommandConfig;

/// Bytes of each of the two outputs that are kept; the rest is read and dropped, so that the program never waits.
const OUTPUT_BYTES_MAX: usize = 4096;
/// How long outputs are read when the program has ended: what it left running may hold them open for ever.
const OUTPUT_AFTER_END: Duration = Duration::from_millis(500);
/// Variables that override the configuration may be secrets.
const OURS: &str = "WEIGHBRIDGE__";

/// The program.
#[derive(Clone)]
pub(super) struct Program {
    config: CommandConfig,
    places: Arc<Semaphore>,
}

impl Program {
    pub(super) fn new(config: &CommandConfig) -> Program {
        Program { config: config.clone(), places: Arc::new(Semaphore::new(config.concurrency)) }
    }

    pub(super) async fn start(&self, task: &Task) -> Result<(), NotStarted> {
        let _place = self.places.acquire().await.expect("the semaphore is never closed");
        let program = &self.config.program;
        let failed = |log: String| NotStarted { visitors: "The program that starts this app failed.".into(), log };
        let mut child = self.spawn(task).map_err(|error| failed(format!("cannot run {program:?}: {error}")))?;
        let outputs = [Output::of(child.stdout.take()), Output::of(child.stderr.take())];
        let ended = timeout(self.config.timeout, child.wait()).await;
        if ended.is_err() {
            let _ended_just_now = child.kill().await;
        }
        let [out, err] = outputs;
        let (out, err) = tokio::join!(out.finish(), err.finish());
        match ended {
            Ok(Ok(status)) if status.success() => {
                tracing::info!(app = %task.ask.app, program, out, err, "the program that starts apps has run");
                Ok(())
            }
            Ok(Ok(status)) => Err(failed(format!("{program:?} {}; it wrote {out:?} and {err:?}", spoken(status)))),
            Ok(Err(error)) => Err(failed(format!("{program:?}: {error}"))),
            Err(_) => Err(NotStarted {
                visitors: "The program that starts this app took too long.".into(),
                log: format!("{program:?} was killed after {:?}; it wrote {out:?} and {err:?}", self.config.timeout),
            }),
        }
    }

    fn spawn(&self, task: &Task) -> std::io::Result<Child> {
        let ask = &task.ask;
        let facts = [
            ("app", "WEIGHBRIDGE_APP", ask.app.as_str().to_owned()),
            ("uri", "WEIGHBRIDGE_URI", ask.uri.to_string()),
            ("epoch", "WEIGHBRIDGE_EPOCH", ask.epoch.to_string()),
            ("attempt", "WEIGHBRIDGE_ATTEMPT", ask.attempt.to_string()),
        ];
        let mut command = Command::new(&self.config.program);
        command.args(self.config.arguments.iter().map(|argument| filled_in(argument, &facts)));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(OURS)) {
            command.env_remove(name);
        }
        command
            .envs(facts.iter().map(|(_, variable, value)| (variable, value.replace('\0', ""))))
            .env("WEIGHBRIDGE_ROUTER", &*task.router)
            .process_group(0) // what is typed into the router's terminal is not meant for it
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// `{app}` and the like become facts; what a fact holds is not looked at again.
fn filled_in(argument: &str, facts: &[(&str, &str, String)]) -> String {
    let mut filled = String::new();
    let mut rest = argument;
    while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        rest = &rest[open..];
        let fact = facts
            .iter()
            .find_map(|(name, _, value)| Some((rest.strip_prefix('{')?.strip_prefix(name)?.strip_prefix('}')?, value)));
        match fact {
            Some((after, value)) => {
                filled.push_str(&value.replace('\0', ""));
                rest = after;
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled + rest
}

fn spoken(status: ExitStatus) -> String {
    status.code().map_or_else(|| format!("ended by {status}"), |code| format!("ended with status {code}"))
}

/// The beginning of what a program writes.
struct Output {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Output {
    fn of(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Output {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let into = kept.clone();
        let reader = tokio::spawn(async move {
            let Some(mut pipe) = pipe else { return };
            let mut chunk = [0; 4096];
            while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
                let mut kept = into.lock();
                let room = (OUTPUT_BYTES_MAX - kept.len()).min(read);
                kept.extend_from_slice(&chunk[..room]);
            }
        });
        Output { kept, reader }
    }

    async fn finish(mut self) -> String {
        if timeout(OUTPUT_AFTER_END, &mut self.reader).await.is_err() {
            self.reader.abort();
        }
        String::from_utf8_lossy(&self.kept.lock()).trim_end().to_owned()
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_filled_in(argument: &str, expected: &str) {
        let facts = [("app", "", "{uri}; rm".to_owned()), ("uri", "", "shop.test/a".to_owned())];
        assert_eq!(filled_in(argument, &facts), expected);
    }

    #[test]
    fn facts_take_their_places_once_and_only_there() {
        check_filled_in("--app={app}", "--app={uri}; rm");
        check_filled_in("{uri}{uri}", "shop.test/ashop.test/a");
        check_filled_in("{other} {app", "{other} {app");
        check_filled_in("{{app}}", "{{uri}; rm}");
        check_filled_in("", "");
    }
}
