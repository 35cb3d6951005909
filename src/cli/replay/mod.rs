//! `replay`: the engine on a capture.

mod gateway;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{self, Path, PathBuf};

use clap::Args;

use super::check;
use super::exit::{Exit, Failure};
use crate::config::Snapshot;
use crate::io::capture::CapturePort;
use crate::io::pcap::{CaptureError, Reader, Writer};
use gateway::{Gateway, Tally};

/// Run the engine on a capture: no TUN, no root, and the time is the capture's own
///
/// The same capture, configuration and seed give the same output, byte for byte. The capture may be pcap or pcapng, with
/// link type RAW, IPV4, IPV6, ETHERNET, LINUX_SLL or NULL. It has one order, so one engine decides, however many
/// workers the configuration asks for. Backends count as healthy unless --down says otherwise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tungate replay in.pcap -c tungate.toml -w out.pcap --report report.jsonl\n  \
                        tcpdump -c 1000 -w - | tungate replay - -c tungate.toml --report - | grep '\"drop\"'")]
pub(super) struct Replay {
    /// The capture; - for stdin
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The configuration file
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Write the packets that leave to this capture (link type RAW); - for stdout
    #[arg(short, long, value_name = "OUT")]
    write: Option<PathBuf>,
    /// Write a line of JSON for each packet of IN to this file; - for stdout
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Seed of the engine's hashes: with another, other backends and ports are chosen
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// A backend that gets no new flows: its name, or SERVICE/BACKEND. May be given several times
    #[arg(long, value_name = "NAME")]
    down: Vec<String>,
}

impl Replay {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<Exit, Failure> {
        let piped = self.check_sinks()?;
        let (mut snapshot, _) = check::load(&self.config)?;
        take_down(&mut snapshot, &self.down)?;
        let reader = Reader::new(self.source()?).map_err(|error| self.unreadable(&error))?;
        let mut files = [create(self.write.as_deref())?, create(self.report.as_deref())?];
        let mut nowhere = [io::sink(), io::sink()];
        let tally = {
            let [write, report] = &mut files;
            let [no_write, no_report] = &mut nowhere;
            let (write, report): (&mut dyn Write, &mut dyn Write) = match (piped, write, report) {
                (Some(Pipe::Write), _, report) => (&mut *out, or_nowhere(report, no_report)),
                (Some(Pipe::Report), write, _) => (or_nowhere(write, no_write), &mut *out),
                (None, write, report) => (or_nowhere(write, no_write), or_nowhere(report, no_report)),
            };
            let port = CapturePort::new(reader, Writer::new(write)?);
            let mut gateway = Gateway::new(snapshot, self.seed, port, report);
            let read = loop {
                match gateway.step() {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(self.stopped(error)),
                }
            };
            // What was read before a capture turned out to be cut is worth having.
            let tally = gateway.finish()?;
            read?;
            tally
        };
        if piped.is_none() {
            self.summarize(&tally, out)?;
        }
        Ok(Exit::Yes)
    }

    fn source(&self) -> Result<Box<dyn Read>, Failure> {
        if is_dash(&self.input) {
            return Ok(Box::new(io::stdin().lock()));
        }
        Ok(Box::new(File::open(&self.input).map_err(|error| Failure::file(&self.input, &error))?))
    }

    /// Which of the outputs goes to stdout. None of them may be one of the inputs: it would be emptied before it is
    /// read. Nor may both go to one file: each would write over the other.
    fn check_sinks(&self) -> Result<Option<Pipe>, Failure> {
        for sink in [&self.write, &self.report].into_iter().flatten() {
            let is_input =
                |input: &PathBuf| !is_dash(sink) && identity(sink).is_some_and(|id| identity(input) == Some(id));
            if [&self.input, &self.config].into_iter().any(is_input) {
                let message = format!("{} is read here, so it is not written to", sink.display());
                return Err(Failure::new(Exit::Usage, message).help("choose another file for the output"));
            }
        }
        if let (Some(write), Some(report)) = (&self.write, &self.report)
            && !is_dash(write)
            && are_one_file(write, report)
        {
            let message = format!("{} cannot take both the packets and the report", write.display());
            return Err(Failure::new(Exit::Usage, message).help("choose another file for one of the two"));
        }
        let dash = |sink: &Option<PathBuf>| sink.as_deref().is_some_and(is_dash);
        match (dash(&self.write), dash(&self.report)) {
            (true, true) => Err(Failure::new(Exit::Usage, "only one of -w and --report can go to stdout")
                .help("choose a file for the other")),
            (true, false) => Ok(Some(Pipe::Write)),
            (false, true) => Ok(Some(Pipe::Report)),
            (false, false) => Ok(None),
        }
    }

    /// Why a replay did not come to its end: the capture could not be read on, or the output not be written.
    fn stopped(&self, error: io::Error) -> Failure {
        match error.downcast::<CaptureError>() {
            Ok(error) => self.unreadable(&error),
            Err(error) => error.into(),
        }
    }

    fn unreadable(&self, error: &CaptureError) -> Failure {
        Failure::no(format!("{} {error}", self.input.display()))
    }

    fn summarize(&self, tally: &Tally, out: &mut dyn Write) -> io::Result<()> {
        let seconds = tally.span.as_secs_f64();
        writeln!(out, "{}: {} packets in {seconds:.6} s", self.input.display(), tally.packets)?;
        for (word, count) in tally.verdicts() {
            writeln!(out, "  {word:<8} {count}")?;
        }
        for (reason, count) in &tally.drops {
            writeln!(out, "    {:<24} {count:>8}  {}", reason.name(), reason.meaning())?;
        }
        if let Some(path) = &self.write {
            writeln!(out, "{}: {} packets", path.display(), tally.sent)?;
        }
        Ok(())
    }
}

/// The output that goes to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pipe {
    Write,
    Report,
}

/// Device and inode of what is there.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Whether what is written to one overwrites what is written to the other. `/dev/null` and pipes take anything.
fn are_one_file(one: &Path, other: &Path) -> bool {
    match identity(one) {
        Some(id) => identity(other) == Some(id) && one.is_file(),
        None => path::absolute(one).ok() == path::absolute(other).ok(),
    }
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn create(path: Option<&Path>) -> Result<Option<BufWriter<File>>, Failure> {
    let Some(path) = path.filter(|path| !is_dash(path)) else { return Ok(None) };
    let file = File::create(path).map_err(|error| Failure::file(path, &error))?;
    Ok(Some(BufWriter::new(file)))
}

fn or_nowhere<'a>(file: &'a mut Option<BufWriter<File>>, nowhere: &'a mut io::Sink) -> &'a mut dyn Write {
    match file {
        Some(file) => file,
        None => nowhere,
    }
}

/// A backend that is down gets no new flows, as one of weight 0.
fn take_down(snapshot: &mut Snapshot, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let down = snapshot.find_backends(name).map_err(Failure::no)?;
        for id in down {
            snapshot.backends.iter_mut().filter(|backend| backend.id == id).for_each(|backend| backend.weight = 0);
        }
    }
    Ok(())
}
