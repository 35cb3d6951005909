//! `doctor`: what of this machine keeps a gateway from working.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::check;
use super::exit::{Exit, Failure};
use super::output::{Format, Printer, View};
use crate::admin::{Request, Response};
use crate::config;
use crate::io::diagnosis::{Finding, Host, Level, Running};
use crate::io::log::colour_on;
use crate::io::serve::{AskError, Client};

/// Look for what keeps a gateway, or a DSR backend, from working on this machine
///
/// Looks at the TUN, privileges, forwarding, filters, routes and sizes, changes nothing, and says for each fault the command
/// that mends it. On a backend of a service with mode = "dsr", whose address it knows from the configuration file, it looks
/// at what a backend needs: the tunnel's end, the service's address, a server. Exits with 1 if something does not work.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate doctor -c tungate.toml\n  \
                        ip netns exec gateway tungate doctor     of another network namespace")]
pub(super) struct Doctor {
    /// Look in the light of this configuration file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The admin socket of the gateway that may run here, if not the one of the configuration file
    #[arg(long, value_name = "PATH", requires = "config")]
    socket: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// A finding as JSON.
#[derive(Serialize)]
struct Row {
    level: &'static str,
    subject: String,
    found: String,
    remedy: Option<String>,
}

static FINDINGS: View<Row> = View { kind: "FindingList", columns: &[] };

impl Doctor {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let snapshot = self.config.as_deref().map(check::load).transpose()?.map(|(snapshot, _)| snapshot);
        let host = Host::read(snapshot.as_ref()).map_err(|error| Failure::no(error.to_string()))?;
        let configured = snapshot.as_ref().map(|snapshot| {
            let socket = self.socket.as_ref().unwrap_or(&snapshot.gateway.admin_socket);
            (snapshot, running(socket))
        });
        let findings = host.diagnose(configured.as_ref().map(|(snapshot, running)| (*snapshot, running)));
        let broken = findings.iter().any(|finding| finding.level == Level::Fail);
        match self.output {
            Format::Table | Format::Wide => tell(&findings, colour_on(&io::stdout()), out)?,
            Format::Json | Format::Jsonl => {
                let mut printer = Printer::new(out, self.output, &FINDINGS);
                for Finding { level, subject, found, remedy } in findings {
                    printer.item(&Row { level: word(level), subject, found, remedy })?;
                }
                printer.finish()?;
            }
        }
        Ok(if broken { Exit::No } else { Exit::Yes })
    }
}

/// Who answers on an admin socket. What the file says now need not be what the gateway was started with: it is asked.
fn running(socket: &Path) -> Running {
    let mut interface = None;
    let asked = Client::connect(socket).and_then(|mut client| {
        client.ask(Request::ShowConfig, |part| {
            if let Response::Config(row) = part {
                let snapshot = config::load(&row.text, &row.file, None, &row.name).ok();
                interface = snapshot.map(|snapshot| snapshot.gateway.interface);
            }
            Ok(())
        })
    });
    match (asked, interface) {
        (Ok(()), Some(interface)) => Running::On(interface),
        (Ok(()), None) => Running::Unknown("the configuration of the one that answers cannot be read".to_owned()),
        (Err(AskError::NotReachable { path, error }), _)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            Running::Nobody(path)
        }
        (Err(error), _) => Running::Unknown(error.to_string()),
    }
}

fn tell(findings: &[Finding], colour: bool, out: &mut dyn Write) -> io::Result<()> {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for finding in findings {
        let (before, after) = if colour { (ansi(finding.level), "\x1b[0m") } else { ("", "") };
        let level = word(finding.level);
        writeln!(out, "{before}{level:<4}{after}  {:<width$}  {}", finding.subject, finding.found)?;
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "{:width$}        = help: {remedy}", "")?;
        }
    }
    Ok(())
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "fail",
    }
}

fn ansi(level: Level) -> &'static str {
    match level {
        Level::Ok => "\x1b[32m",
        Level::Warn => "\x1b[33m",
        Level::Fail => "\x1b[31m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_comes_with_its_remedy() {
        let finding = |level, subject: &str, remedy: Option<&str>| Finding {
            level,
            subject: subject.to_owned(),
            found: "something".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let findings = [finding(Level::Ok, "TUN", None), finding(Level::Fail, "privileges", Some("run as root"))];
        let mut out = Vec::new();
        tell(&findings, false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ok    TUN         something\n\
             fail  privileges  something\n                  \
             = help: run as root\n"
        );
    }
}
