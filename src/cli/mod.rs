//! What people type. One binary, verb first; each verb is a function that writes into any `Write`.

mod bench;
mod check;
mod decap;
mod demo;
mod doctor;
mod exit;
mod explain;
mod generate;
mod ha;
mod manual;
mod operate;
mod output;
mod reload;
mod replay;
mod run;
mod show;
mod views;

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::{Exit, Failure};

/// tungate: a layer-4 load balancer that lives in user space on a TUN device.
#[derive(Debug, Parser)]
#[command(
    name = "tungate",
    version,
    about = "A layer-4 load balancer in user space, on a TUN device",
    long_about = "A layer-4 load balancer in user space, on a TUN device.\n\n\
                  Clients connect to a service's address; tungate sends each of their connections to one of the \
                  service's backends and the answers back, packet by packet, without ending the connection itself.",
    after_help = AFTER_HELP,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
First steps:
  tungate demo                              watch it work, in a lab of its own on this machine
  tungate config example > tungate.toml     a commented configuration to start from
  tungate check tungate.toml                say all that is wrong with it
  tungate show services                     what a running gateway does
  tungate manual                            the manual's chapters; `tungate manual dsr` prints one

Exit codes: 0 yes, 1 no (invalid, unhealthy, not found), 2 usage, 3 daemon not reachable, 4 refused.";

#[derive(Debug, Subcommand)]
enum Verb {
    Run(run::Run),
    Demo(demo::Demo),
    Check(check::Check),
    Replay(replay::Replay),
    Explain(explain::Explain),
    Doctor(doctor::Doctor),
    Decap(decap::Decapsulate),
    #[command(subcommand)]
    Bench(bench::Bench),
    #[command(subcommand)]
    Show(show::Show),
    #[command(subcommand)]
    Flows(show::Flows),
    Plan(reload::Plan),
    Reload(reload::Reload),
    Confirm(reload::Confirm),
    Rollback(reload::Rollback),
    History(reload::History),
    Drain(operate::Drain),
    Enable(operate::Enable),
    Disable(operate::Disable),
    Weight(operate::Weight),
    #[command(subcommand)]
    Ha(ha::Ha),
    #[command(subcommand)]
    Config(generate::Config),
    Completions(generate::Completions),
    Man(generate::Man),
    Manual(manual::Manual),
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    // Help goes to stdout and ends with 0, a usage error to stderr and ends with 2: clap's own rules are ours.
    let cli = Cli::parse();
    let mut out = BufWriter::new(std::io::stdout().lock());
    let done = run(&cli, &mut out).and_then(|exit| out.flush().map_err(Failure::from).map(|()| exit));
    match done {
        Ok(exit) => exit.into(),
        Err(failure) => {
            // What was printed before it went wrong belongs before the reason. If that fails too, there is only one.
            let _ = out.flush();
            failure.tell(&mut std::io::stderr().lock()).into()
        }
    }
}

fn run(cli: &Cli, out: &mut dyn Write) -> Result<Exit, Failure> {
    match &cli.verb {
        Verb::Run(run) => run.run(out),
        Verb::Demo(demo) => demo.run(out),
        Verb::Check(check) => check.run(out),
        Verb::Replay(replay) => replay.run(out),
        Verb::Explain(explain) => explain.run(out),
        Verb::Doctor(doctor) => doctor.run(out),
        Verb::Decap(decap) => decap.run(out),
        Verb::Bench(bench) => bench.run(out),
        Verb::Show(show) => show.run(out),
        Verb::Flows(flows) => flows.run(out),
        Verb::Plan(plan) => plan.run(out),
        Verb::Reload(reload) => reload.run(out),
        Verb::Confirm(confirm) => confirm.run(out),
        Verb::Rollback(rollback) => rollback.run(out),
        Verb::History(history) => history.run(out),
        Verb::Drain(drain) => drain.run(out),
        Verb::Enable(enable) => enable.run(out),
        Verb::Disable(disable) => disable.run(out),
        Verb::Weight(weight) => weight.run(out),
        Verb::Ha(ha) => ha.run(out),
        Verb::Config(config) => config.run(out),
        Verb::Completions(completions) => completions.run(out),
        Verb::Man(man) => man.run(out),
        Verb::Manual(manual) => manual.run(out),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
