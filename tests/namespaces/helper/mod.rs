//! The other end of some cases: this test binary again, in a namespace, as a server or a client of our own.

mod abuse;
mod connections;
mod datagrams;
mod echo;
mod registry;
mod requests;

use std::net::SocketAddr;
use std::process::ExitCode;

/// The argument that makes the test binary a helper.
pub(crate) const FLAG: &str = "--helper";

pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address with a port");
    let count = |text: &str| text.parse::<usize>().expect("a number");
    let result = match words[..] {
        ["tcp-echo", at] => echo::tcp(address(at)),
        ["udp-echo", at] => echo::udp(address(at)),
        ["connections", to, n] => connections::hold(address(to), count(n)),
        ["visits", to, rate] => connections::visit(address(to), count(rate)),
        ["talk", n, ref to @ ..] => connections::talk(&to.iter().map(|to| address(to)).collect::<Vec<_>>(), count(n)),
        ["abuse", interface, seconds, rate] => abuse::abuse(interface, count(seconds) as u64, count(rate)),
        ["registry", at, file] => registry::serve(address(at), file),
        ["requests", to, rate] => requests::run(address(to), rate.parse().expect("a number")),
        ["datagrams", to, n] => datagrams::exchange(address(to), count(n)),
        _ => panic!("no helper knows {words:?}"),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::runner::say(&mut std::io::stderr(), &format!("{}: {error}\n", words[0]));
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) {
    crate::runner::say(&mut std::io::stdout(), text);
}
