//! `drain`, `enable`, `disable`, `weight`: what the operator says of a backend.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::exit::{Exit, Failure};
use super::output::seconds;
use super::show::{Daemon, done};
use crate::admin::{Operate, Request};
use crate::control::overrides::Operation;
use crate::io::serve::Client;

/// What every one of these verbs takes.
#[derive(Debug, Args)]
struct Said {
    /// The backend: SERVICE/BACKEND
    #[arg(value_name = "SERVICE/BACKEND")]
    backend: String,
    /// Why, for `show backends`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

impl Said {
    fn send(&self, operation: Operation, lasting: Option<Duration>, cut: bool) -> Result<Exit, Failure> {
        let said = Operate {
            backend: self.backend.clone(),
            operation,
            for_s: lasting.map(|lasting| lasting.as_secs()),
            reason: self.reason.clone(),
            cut,
        };
        let mut client = Client::connect(&self.daemon.socket)?;
        client.ask(Request::Operate(said), done)?;
        Ok(Exit::Yes)
    }
}

/// Give a backend no new flows; those it has go on
///
/// It stays so over reloads and restarts, until `tungate enable`, or for the time given. With --for it takes new flows
/// again by itself: a rolling restart cannot leave a backend out for good.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate drain web/b1 --for 10m --reason 'kernel update'\n  \
                        tungate show flows --backend web/b1 --count")]
pub(super) struct Drain {
    #[command(flatten)]
    said: Said,
    /// For this long only
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    lasting: Option<Duration>,
}

/// Give a backend new flows again, after `drain` or `disable`
#[derive(Debug, Args)]
pub(super) struct Enable {
    #[command(flatten)]
    said: Said,
}

/// Take a backend out of service: no new flows, whatever health checks say
///
/// The flows it has go on, as with `drain`, unless they are cut.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tungate disable web/b1 --cut --reason 'disk is failing'")]
pub(super) struct Disable {
    #[command(flatten)]
    said: Said,
    /// For this long only
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    lasting: Option<Duration>,
    /// End its flows at once
    #[arg(long)]
    cut: bool,
}

/// Give a backend another share of new flows than the configuration does
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate weight web/b1 5\n  tungate weight web/b1 configured")]
pub(super) struct Weight {
    #[command(flatten)]
    said: Said,
    /// Share relative to the other backends, 0 = no new flows; or `configured`: as the configuration says
    #[arg(value_name = "N", value_parser = share)]
    share: Share,
}

/// What is written for a weight.
#[derive(Clone, Copy, Debug)]
enum Share {
    Configured,
    Of(u16),
}

fn share(text: &str) -> Result<Share, String> {
    if text == "configured" {
        return Ok(Share::Configured);
    }
    text.parse().map(Share::Of).map_err(|_| "write a number up to 65535, or `configured`".to_owned())
}

impl Drain {
    pub(super) fn run(&self, _: &mut dyn Write) -> Result<Exit, Failure> {
        self.said.send(Operation::Drain, self.lasting, false)
    }
}

impl Enable {
    pub(super) fn run(&self, _: &mut dyn Write) -> Result<Exit, Failure> {
        self.said.send(Operation::Enable, None, false)
    }
}

impl Disable {
    pub(super) fn run(&self, _: &mut dyn Write) -> Result<Exit, Failure> {
        self.said.send(Operation::Disable, self.lasting, self.cut)
    }
}

impl Weight {
    pub(super) fn run(&self, _: &mut dyn Write) -> Result<Exit, Failure> {
        let weight = match self.share {
            Share::Configured => None,
            Share::Of(weight) => Some(weight),
        };
        self.said.send(Operation::Weight(weight), None, false)
    }
}
