//! The program as an operator starts it: arguments in; text and an exit code out.

use std::path::Path;
use std::process::{Command, Output};

fn weighbridge(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weighbridge"));
    command.args(arguments).env_remove("WEIGHBRIDGE_CONFIG");
    command
}

/// Runs it and checks the exit code; what it printed.
#[track_caller]
fn check_exit(command: &mut Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned());
    assert_eq!(status.code(), Some(code), "{stdout}{stderr}");
    (stdout, stderr)
}

fn file(directory: &Path, text: &str) -> String {
    let file = directory.join("w.toml");
    std::fs::write(&file, text).expect("a file in a directory of our own");
    file.to_str().expect("a path of ours").into()
}

#[test]
fn check_prints_all_problems_with_line_and_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = file(directory.path(), "workers = -1\n[tiemouts]\n");
    let (stdout, stderr) = check_exit(&mut weighbridge(&["check", &file]), 1);
    assert_eq!(stdout, "");
    let expected = format!(
        "{file}:1: workers: must be from 0 to 1024, not -1\n\
         {file}:2: tiemouts: there is no such section; did you mean timeouts?\n"
    );
    assert_eq!(stderr, expected);
}

#[test]
fn check_tries_the_files_of_tls() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["shop.test".to_string()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["other.test".to_string()]).expect("a certificate");
    let path = |name: &str| directory.path().join(name);
    for (name, content) in [
        ("shop.crt", made.cert.pem()),
        ("shop.key", made.signing_key.serialize_pem()),
        ("other.key", other.signing_key.serialize_pem()),
    ] {
        std::fs::write(path(name), content).expect("a file in a directory of our own");
    }
    let text = |key: &str| {
        let (cert, key) = (path("shop.crt"), path(key));
        format!("[https]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = {cert:?}, key = {key:?} }}]\n")
    };
    check_exit(&mut weighbridge(&["check", &file(directory.path(), &text("shop.key"))]), 0);
    let (_, stderr) = check_exit(&mut weighbridge(&["check", &file(directory.path(), &text("other.key"))]), 1);
    let (cert, key) = (path("shop.crt"), path("other.key"));
    let expected = format!("TLS: {} does not belong to the certificate in {}\n", key.display(), cert.display());
    assert_eq!(stderr, expected);
}

#[test]
fn check_prints_the_configuration_in_force() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = file(directory.path(), "workers = 3\n[admin]\nuser = \"op\"\npassword = \"hush\"\n");
    let (stdout, _) = check_exit(weighbridge(&["check", &file]).env("WEIGHBRIDGE__TIMEOUTS__CONNECT", "9s"), 0);
    assert!(stdout.starts_with("workers = 3\n"), "{stdout}");
    assert!(stdout.contains("[timeouts]\nconnect = \"9s\"\n"), "{stdout}");
    assert!(stdout.contains("password = \"***\"\n") && !stdout.contains("hush"), "{stdout}");
}

#[test]
fn the_printed_example_passes_the_check() {
    let directory = tempfile::tempdir().expect("a directory");
    let (example, _) = check_exit(&mut weighbridge(&["check", "--example"]), 0);
    let (in_force, _) = check_exit(&mut weighbridge(&["check", &file(directory.path(), &example)]), 0);
    assert!(in_force.contains("listen = [\"0.0.0.0:8080\"]\n"), "{in_force}");
}

#[test]
fn a_wrong_command_line_exits_with_2_and_shows_the_way() {
    let (_, stderr) = check_exit(&mut weighbridge(&["chek"]), 2);
    assert!(stderr.contains("check"), "{stderr}");
    check_exit(&mut weighbridge(&["check"]), 2);
    check_exit(&mut weighbridge(&[]), 2);
}

#[test]
fn failures_are_sentences() {
    let (_, stderr) = check_exit(&mut weighbridge(&["run", "--config", "/nowhere/w.toml"]), 1);
    assert_eq!(stderr, "cannot read /nowhere/w.toml: No such file or directory (os error 2)\n");
    let (_, stderr) = check_exit(&mut weighbridge(&["publish", "router.register", "{host: 1}"]), 1);
    assert!(stderr.starts_with("the message is not JSON: "), "{stderr}");
    // Port 1 is free on any sane machine.
    let (_, stderr) = check_exit(&mut weighbridge(&["routes", "--admin", "127.0.0.1:1"]), 1);
    assert!(stderr.starts_with("no router answers on 127.0.0.1:1: "), "{stderr}");
    let (_, stderr) = check_exit(weighbridge(&["run"]).env("WEIGHBRIDGE__WORKERS", "many"), 1);
    assert_eq!(stderr, "WEIGHBRIDGE__WORKERS: workers: must be a whole number, not \"many\"\n");
}

#[test]
fn version_and_completions_are_printed() {
    let (stdout, _) = check_exit(&mut weighbridge(&["version"]), 0);
    assert_eq!(stdout, format!("weighbridge {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(check_exit(&mut weighbridge(&["--version"]), 0).0, stdout);
    assert!(check_exit(&mut weighbridge(&["completions", "bash"]), 0).0.contains("weighbridge"));
}
