//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Diagnostics that [`Report::render`] tells.
const RENDERED: usize = 100;

/// All that [`load`](super::load) has to say about one file. Owns a copy of the text, to show the lines it speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    file: String,
    text: String,
    diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(file: &str, text: &str, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort_by_key(|d| (d.primary.span.start, d.primary.span.end, d.code));
        let text = if diagnostics.is_empty() { String::new() } else { text.to_string() };
        Self { file: file.to_string(), text, diagnostics }
    }

    /// Everything found, in the order of the file.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Whether the file cannot be used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.code.severity() == Severity::Error)
    }

    /// Each diagnostic with the lines it speaks of, separated by empty lines; with ANSI colours if asked for. Of very many
    /// the first hundred: nobody reads more, and each takes a walk through the text.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let told = self.diagnostics.iter().take(RENDERED).map(|d| d.render(&self.file, &self.text, &renderer));
        let untold = self.diagnostics.len().saturating_sub(RENDERED);
        let rest = (untold > 0).then(|| format!("and {untold} more in {}", self.file));
        told.chain(rest).collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Report {
    /// The plain rendering.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// One thing that is wrong, or doubtful.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which rule speaks.
    pub code: Code,
    /// One sentence, without a full stop.
    pub message: String,
    /// Where it is wrong.
    pub primary: Label,
    /// What it collides with, or what else one has to see to understand.
    pub secondary: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
}

/// A place in the file and what is to be seen there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// A few words; may be empty.
    pub text: String,
}

impl Label {
    fn new(span: Range<usize>, text: impl Into<String>) -> Self {
        Self { span, text: text.into() }
    }

    /// The span as the renderer takes it: within the first of its lines, at the borders of characters.
    fn visible(&self, text: &str) -> Range<usize> {
        let start = text.floor_char_boundary(self.span.start);
        let rest = &text[start..text.floor_char_boundary(self.span.end.max(start))];
        start..start + rest.find(['\r', '\n']).unwrap_or(rest.len())
    }
}

impl Diagnostic {
    pub(super) fn new(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), primary: Label::new(span, ""), secondary: Vec::new(), help: None }
    }

    /// What is to be seen at the primary place.
    pub(super) fn label(mut self, text: impl Into<String>) -> Self {
        self.primary.text = text.into();
        self
    }

    /// Another place that one has to see.
    pub(super) fn also(mut self, span: Range<usize>, text: impl Into<String>) -> Self {
        self.secondary.push(Label::new(span, text));
        self
    }

    /// What to do about it.
    pub(super) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    fn render(&self, file: &str, text: &str, renderer: &Renderer) -> String {
        let level = match self.code.severity() {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let annotation = |kind: AnnotationKind, label: &Label| {
            let words = (!label.text.is_empty()).then(|| label.text.clone());
            kind.span(label.visible(text)).label(words)
        };
        let snippet = Snippet::source(text)
            .path(file.to_string())
            .annotation(annotation(AnnotationKind::Primary, &self.primary))
            .annotations(self.secondary.iter().map(|label| annotation(AnnotationKind::Context, label)));
        let title = level.primary_title(self.message.as_str()).id(self.code.name());
        let group = Group::with_title(title).element(snippet);
        let help = self.help.as_deref().map(|help| Level::HELP.message(help));
        renderer.render(&[group.elements(help)])
    }
}

/// Whether a configuration with this can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but is unlikely to do what was meant.
    Warning,
}

/// The rules. A number once given keeps its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The file is not TOML.
    Syntax,
    /// A key that does not exist.
    UnknownKey,
    /// A value of another type than the key takes.
    WrongType,
    /// A key that has to be there is not.
    MissingKey,
    /// A key or value of the contract that this version cannot serve yet.
    NotAvailable,
    /// A word that is not one of the few that the key takes.
    UnknownValue,
    /// A number or duration beyond its limits.
    OutOfRange,
    /// A string that cannot be read as what it should be: an address, a port, a duration.
    Malformed,
    /// A name with characters that labels, filters or the kernel do not take.
    BadName,
    /// Two services of one name.
    DuplicateService,
    /// Two backends of one name in one service.
    DuplicateBackendName,
    /// Two services (or one, twice) listen on the same address, port and protocol.
    ListenTaken,
    /// Two backends of one address in one service.
    DuplicateBackendAddress,
    /// An address that no service, backend or gateway can have: multicast, loopback and the like.
    UnusableAddress,
    /// A backend's address is a VIP: its packets would come straight back.
    BackendIsVip,
    /// A backend's address is one of the gateway's source addresses.
    BackendIsSource,
    /// A source address is a VIP.
    SourceIsVip,
    /// A listen address of a family in which the service has no backend.
    NoBackendOfFamily,
    /// `source-nat`, or a tunnel, without a source address of the family.
    NoSourceAddress,
    /// An MTU below what IPv6 needs.
    MtuBelowIpv6,
    /// The same entry twice in a list.
    DuplicateEntry,
    /// More services or backends than there are numbers for.
    TooMany,
    /// `announce-on` names the TUN.
    AnnounceOnTun,
    /// `protocol = "any"` without tunnel: NAT has to know the ports.
    AnyWithoutTunnel,
    /// A backend of a DSR service at another port than the service's: the packet arrives as it was sent.
    PortBehindTunnel,
    /// `encapsulation` without tunnel, or `gre-key` without GRE.
    EncapsulationWithoutTunnel,
    /// A health check without a port to go to.
    CheckWithoutPort,
    /// A key that the health check has no use for.
    OfAnotherCheck,
    /// A heartbeat path that does not have an end on each of the two gateways.
    PathEnds,
    /// All weights of a service are 0.
    AllWeightsZero,
    /// A service without backends.
    NoBackends,
    /// A timeout below what an RFC demands.
    ShortTimeout,
    /// A backend of a family in which the service does not listen.
    UnusedBackend,
    /// `max-flows` that the source ports cannot reach.
    MaxFlowsBeyondPorts,
    /// Many listen ports end at one backend port.
    PortsCollapse,
    /// A limit that another one is always reached before.
    IdleLimit,
    /// Something about clients that are remembered, where none is.
    IdleAffinity,
    /// `source-nat` with direct server return.
    IdleSourceNat,
    /// A health check that lasts longer than the time to the next.
    LongCheck,
    /// A pair that announces its addresses nowhere.
    Unannounced,
}

impl Code {
    /// `E0nn` for errors, `W0nn` for warnings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syntax => "E001",
            Self::UnknownKey => "E002",
            Self::WrongType => "E003",
            Self::MissingKey => "E004",
            Self::NotAvailable => "E005",
            Self::UnknownValue => "E006",
            Self::OutOfRange => "E007",
            Self::Malformed => "E008",
            Self::BadName => "E009",
            Self::DuplicateService => "E010",
            Self::DuplicateBackendName => "E011",
            Self::ListenTaken => "E012",
            Self::DuplicateBackendAddress => "E013",
            Self::UnusableAddress => "E014",
            Self::BackendIsVip => "E015",
            Self::BackendIsSource => "E016",
            Self::SourceIsVip => "E017",
            Self::NoBackendOfFamily => "E018",
            Self::NoSourceAddress => "E019",
            Self::MtuBelowIpv6 => "E020",
            Self::DuplicateEntry => "E021",
            Self::TooMany => "E022",
            Self::AnnounceOnTun => "E023",
            Self::AnyWithoutTunnel => "E024",
            Self::PortBehindTunnel => "E025",
            Self::EncapsulationWithoutTunnel => "E026",
            Self::CheckWithoutPort => "E027",
            Self::OfAnotherCheck => "E028",
            Self::PathEnds => "E029",
            Self::AllWeightsZero => "W001",
            Self::NoBackends => "W002",
            Self::ShortTimeout => "W003",
            Self::UnusedBackend => "W004",
            Self::MaxFlowsBeyondPorts => "W005",
            Self::PortsCollapse => "W006",
            Self::IdleLimit => "W007",
            Self::IdleAffinity => "W012",
            Self::IdleSourceNat => "W013",
            Self::LongCheck => "W008",
            Self::Unannounced => "W014",
        }
    }

    /// Error or warning.
    pub const fn severity(self) -> Severity {
        if self.name().as_bytes()[0] == b'W' { Severity::Warning } else { Severity::Error }
    }
}
