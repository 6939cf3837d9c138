//! The command line: what an operator types, turned into a call of a role or a question to a running router. Files,
//! environment and the machine are read here and nowhere below.

mod ask;
mod load;
mod show;

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::reference;
use crate::roles::{demo, router};

/// Everything that can be typed. `docs/CLI.md` is generated from it.
#[derive(Debug, Parser)]
#[command(
    name = "weighbridge",
    version,
    about = "A load-aware HTTP routing proxy for platforms that run many small apps",
    after_help = EXIT_CODES,
    disable_help_subcommand = true,
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `run`: ended by a signal after draining
  1  it failed: the configuration has problems, a port is taken, no router answers or it refuses
  2  the command line is wrong

Every configuration key can be overridden by an environment variable, such as
WEIGHBRIDGE__NATS__SERVERS=nats://10.0.0.1:4222 for `servers` in [nats]; see docs/CONFIG.md.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a router
    ///
    /// Runs until a signal ends it. SIGTERM, SIGINT and SIGUSR1 drain: /health turns 503, the listeners close after
    /// drain.wait, and what is in flight may take drain.timeout. SIGHUP reads the configuration again.
    #[command(after_help = "Examples:\n  weighbridge run\n  weighbridge run --config /etc/weighbridge.toml\n  \
                            WEIGHBRIDGE__HTTP__LISTEN=127.0.0.1:8000 weighbridge run")]
    Run(ConfigFile),

    /// Show a router at work, with nothing installed
    ///
    /// A router on a bus of its own, three simulated machines of unequal speed, real HTTP instances on them, and visitors.
    /// Prints what to open and what to try, then a table of who gets how much. Ctrl-C ends it.
    #[command(after_help = "Examples:\n  weighbridge demo\n  weighbridge demo --http-port 8000")]
    Demo {
        /// Port of the apps [default: 8080, or a free one if that is taken]
        #[arg(long, value_name = "PORT")]
        http_port: Option<u16>,
        /// Port of the operator [default: 8081, or a free one if that is taken]
        #[arg(long, value_name = "PORT")]
        admin_port: Option<u16>,
        /// Milliseconds after which the sleeping app sleeps again; for tests
        #[arg(long, hide = true, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(300..=3_600_000))]
        idle_ms: u64,
    },

    /// Check a configuration file
    ///
    /// Prints all problems, each with line and key, and exits with 1; or prints the configuration in force as TOML
    /// (the file, then the environment, then defaults), secrets masked.
    #[command(after_help = "Examples:\n  weighbridge check /etc/weighbridge.toml\n  \
                            weighbridge check --example > weighbridge.toml")]
    Check {
        /// The file to check
        #[arg(required_unless_present = "example")]
        file: Option<PathBuf>,
        /// Print a complete, commented configuration instead, every key with its default
        #[arg(long, conflicts_with = "file")]
        example: bool,
    },

    /// Publish a message on the bus
    ///
    /// Over NATS if the configuration has a nats section, else through the admin port of the running router, which tells why
    /// if it would have dropped the message.
    #[command(after_help = "Examples:\n  weighbridge publish router.register \
                            '{\"host\":\"127.0.0.1\",\"port\":9001,\"uris\":[\"shop.example.com\"]}'\n  \
                            weighbridge publish dea.heartbeat - < heartbeat.json")]
    Publish {
        /// Subject, such as router.register
        subject: String,
        /// The message; - reads it from standard input
        json: String,
        #[command(flatten)]
        router: Router,
    },

    /// List the routes of a running router
    #[command(after_help = "Examples:\n  weighbridge routes\n  weighbridge routes --json | jq 'keys'")]
    Routes {
        /// As the router tells them, in gorouter's layout
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        router: Router,
    },

    /// Tell where a running router would send a request, and why
    #[command(after_help = "Examples:\n  weighbridge explain shop.example.com/cart\n  \
                            weighbridge explain http://shop.example.com/ --session 8f2c…")]
    Explain {
        /// What a client would ask for: host and path, with or without http://
        url: String,
        /// Value of the client's sticky cookie, __VCAP_ID__
        #[arg(long, value_name = "INSTANCE")]
        session: Option<String>,
        /// As the router tells it
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        router: Router,
    },

    /// List the apps of a running router: which of them sleep, and how much each is used
    #[command(after_help = "Examples:\n  weighbridge apps\n  weighbridge apps --json | jq 'map_values(.state)'")]
    Apps {
        /// As the router tells them
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        router: Router,
    },

    /// Put an app to sleep: its routes stay, and the next visitor wakes it
    ///
    /// Every router on the bus hears it. Its instances are not stopped by this: whoever runs them does that afterwards.
    #[command(after_help = "Examples:\n  weighbridge sleep 6f1c2a…\n  weighbridge sleep shop --uri shop.example.com")]
    Sleep {
        /// The app's id, as in its registrations
        app: String,
        /// A route that stays, more than once if need be [default: all that it has now]
        #[arg(long = "uri", value_name = "HOST[/PATH]")]
        uris: Vec<String>,
        #[command(flatten)]
        router: Router,
    },

    /// Have a sleeping app started, as a visitor would
    #[command(after_help = "Examples:\n  weighbridge wake shop")]
    Wake {
        /// The app's id
        app: String,
        #[command(flatten)]
        router: Router,
    },

    /// Print the version
    Version,

    /// Print a script that completes commands in a shell
    #[command(after_help = "Examples:\n  source <(weighbridge completions bash)\n  \
                            weighbridge completions fish > ~/.config/fish/completions/weighbridge.fish")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

#[derive(Args, Clone, Debug)]
struct ConfigFile {
    /// Configuration file; without one all keys have their defaults
    #[arg(short, long, value_name = "FILE", env = "WEIGHBRIDGE_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
}

/// Which running router is meant.
#[derive(Args, Clone, Debug)]
struct Router {
    #[command(flatten)]
    file: ConfigFile,
    /// Admin port of the router [default: admin.listen of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
}

/// A sentence for the operator, or several lines of them.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    match obey(CommandLine::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence)) => {
            // With standard error gone there is nobody left to tell.
            let _unheard = writeln!(io::stderr(), "{sentence}");
            ExitCode::FAILURE
        }
    }
}

fn obey(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run(ConfigFile { config }) => run(config),
        Command::Demo { http_port, admin_port, idle_ms } => demo(http_port, admin_port, idle_ms),
        Command::Check { file: Some(file), .. } => check(&file),
        Command::Check { file: None, .. } => print(&reference::example()),
        Command::Publish { subject, json, router } => ask::publish(&router, subject, message(json)?),
        Command::Routes { json, router } => print(&ask::routes(&router, json)?),
        Command::Explain { url, session, json, router } => {
            print(&ask::explain(&router, &url, session.as_deref(), json)?)
        }
        Command::Apps { json, router } => print(&ask::apps(&router, json)?),
        Command::Sleep { app, uris, router } => print(&ask::sleep(&router, &app, &uris)?),
        Command::Wake { app, router } => print(&ask::wake(&router, &app)?),
        Command::Version => print(&format!("weighbridge {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "weighbridge", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

fn run(file: Option<PathBuf>) -> Result<(), Failure> {
    let config = load::config(file.as_deref())?;
    Ok(router::run(config, move || load::config(file.as_deref()).map_err(|Failure(problems)| problems))?)
}

fn demo(http_port: Option<u16>, admin_port: Option<u16>, idle_ms: u64) -> Result<(), Failure> {
    let idle = Duration::from_millis(idle_ms);
    let program = std::env::args().next().unwrap_or_else(|| "weighbridge".to_owned());
    Ok(demo::run(demo::Options { http_port, admin_port, idle, program })?)
}

fn check(file: &std::path::Path) -> Result<(), Failure> {
    let config = load::config(Some(file))?;
    router::check_files(&config)?;
    print(&config.effective.to_string())
}

/// The message itself, or what standard input holds. Bytes that are no JSON are refused here: most likely the shell has
/// taken the quotes.
fn message(json: String) -> Result<String, Failure> {
    let text = if json == "-" { io::read_to_string(io::stdin().lock().by_ref())? } else { json };
    match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure(format!("the message is not JSON: {error}"))),
    }
}

/// Prints to standard output; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference page: every command's help.
    fn page() -> String {
        let mut command = CommandLine::command();
        command.build();
        let mut page = String::from(
            "# Command line\n\nThis page is generated from the program; `weighbridge COMMAND --help` shows the same.\n",
        );
        let mut chapter = |title: &str, mut command: clap::Command| {
            let help = command.render_long_help().to_string();
            let help: Vec<&str> = help.lines().map(str::trim_end).collect();
            page += &format!("\n## {title}\n\n```text\n{}\n```\n", help.join("\n").trim_end());
        };
        chapter("weighbridge", command.clone());
        for inner in command.get_subcommands() {
            chapter(&format!("weighbridge {}", inner.get_name()), inner.clone());
        }
        page
    }

    #[test]
    fn the_reference_is_that_of_this_version() {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/CLI.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&file, page()).expect("the page can be written");
        }
        let committed = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(committed == page(), "docs/CLI.md is stale: UPDATE_DOCS=1 cargo test --lib writes it");
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn a_message_must_be_json() {
        assert_eq!(message("{\"a\": 1}".into()).expect("JSON"), "{\"a\": 1}");
        let Failure(why) = message("{a: 1}".into()).expect_err("no JSON");
        assert_eq!(why, "the message is not JSON: key must be a string at line 1 column 2");
    }
}
