//! The router as a process of its own, as operators run it: started with a file, spoken to by signals.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{eventually, in_time, millis};

/// Where processes of one test keep their files.
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty one, gone with the test.
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("there is room for temporary files"))
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, whole or not at all, and gives its path.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let (path, half) = (self.path(name), self.path(&format!("{name}.half")));
        std::fs::write(&half, text).expect("a file can be written");
        std::fs::rename(&half, &path).expect("a file can be renamed");
        path
    }
}

/// A running router; it is killed with the test.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with this file and waits until it serves.
    pub async fn serving(config: &Path, log: PathBuf) -> Process {
        let process = Process::started(config, log, &[]);
        process.until_it_says("serving").await;
        process
    }

    /// Starts it with this file and these variables.
    pub fn started(config: &Path, log: PathBuf, variables: &[(&str, &str)]) -> Process {
        let file = File::create(&log).expect("a log can be created");
        let child = Command::new(env!("CARGO_BIN_EXE_weighbridge"))
            .args(["run", "--config"])
            .arg(config)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Process { child, log }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until its log has `words`.
    pub async fn until_it_says(&self, words: &str) {
        let wait = eventually(words, || self.log().contains(words));
        let told = tokio::time::timeout(super::PATIENCE, wait).await;
        assert!(told.is_ok(), "it never said {words:?}:\n{}", self.log());
    }

    /// Sends it a signal, such as `USR1`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is a kill").success());
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        in_time("the end of a process", async {
            loop {
                if let Some(status) = self.child.try_wait().expect("it is our child") {
                    return status;
                }
                tokio::time::sleep(millis(2)).await;
            }
        })
        .await
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A port that nobody has, and that no other test is given. It lies below those that the system gives to outgoing
/// connections, so that it is still free when it is needed, and after a restart.
pub fn free_port() -> u16 {
    const FIRST: u16 = 15_000;
    const COUNT: usize = 15_000;
    static NEXT: LazyLock<AtomicUsize> =
        LazyLock::new(|| AtomicUsize::new(uuid::Uuid::new_v4().as_u128() as usize % COUNT));
    loop {
        let port = FIRST + (NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
