//! Which coordinator, and with which certificate: flags and environment first, then a context of a file.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blackstart_coordinator::pki::Seen;
use blackstart_proto::tls::{self, TlsFileError, TlsFiles};
use blackstart_proto::yaml::{self, Item, Problems, Table};
use jiff::Timestamp;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::ClientTlsConfig;
use zeroize::Zeroizing;

use crate::cli::{ConnectionArgs, Environment};
use crate::failure::Failure;

/// Whoever has a certificate with fewer days left is told with each command.
const LAST_DAYS: i64 = 30;
/// Read when nothing else names a file and the user has none.
const SYSTEM_FILE: &str = "/etc/blackstart/cli.yaml";

const EXAMPLE: &str = "\
give --coordinator IP:PORT --tls-ca FILE --tls-cert FILE --tls-key FILE, or write a file such as
    contexts:
      - name: lab
        addresses: [\"10.128.38.100:7443\"]
        ca: ca.crt
        certificate: ann.crt
        key: ann.key";

/// Everything that a connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Tried in turn; never empty.
    pub(crate) coordinators: Vec<SocketAddr>,
    pub(crate) shows: Shows,
    /// For the connection, and again for each answer.
    pub(crate) timeout: Duration,
}

/// What an operator shows, and by whose authority coordinators are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shows {
    /// A certificate.
    Certificate(TlsFiles),
    /// A token of an identity provider.
    Token {
        /// The authority's certificate.
        ca: PathBuf,
        /// The token, read anew for each call: others keep it fresh.
        file: PathBuf,
    },
}

impl Shows {
    /// Every certificate's file.
    pub(crate) fn certificates(&self) -> Vec<&Path> {
        match self {
            Self::Certificate(tls) => vec![&tls.certificate, &tls.ca],
            Self::Token { ca, .. } => vec![ca],
        }
    }

    /// What is to be said of a certificate that ends within [`LAST_DAYS`]. One that cannot be read is told of by whoever needs it.
    pub(crate) fn ends_soon(&self, now: Timestamp) -> Option<String> {
        let Self::Certificate(tls) = self else { return None };
        let seen = Seen::read(&tls.certificate).ok()?;
        let days = (seen.ends.as_second() - now.as_second()).div_euclid(24 * 3600);
        let day = seen.ends.strftime("%Y-%m-%d");
        (0..LAST_DAYS).contains(&days).then(|| {
            format!("warning: your certificate ends on {day}; renew it: blackstart certificate renew")
        })
    }

    /// The client side of TLS with it.
    pub(crate) fn tls(&self) -> Result<ClientTlsConfig, TlsFileError> {
        match self {
            Self::Certificate(tls) => tls.read().map(|material| tls::client_config(&material)),
            Self::Token { ca, .. } => {
                let read = fs::read(ca).map_err(|source| TlsFileError {
                    what: "the authority's certificate",
                    path: ca.clone(),
                    source,
                });
                read.map(|ca| tls::visitor_config(&ca))
            }
        }
    }

    /// What goes with each call; `None`: nothing.
    pub(crate) fn bearer(&self) -> Result<Option<MetadataValue<Ascii>>, String> {
        let Self::Token { file, .. } = self else {
            return Ok(None);
        };
        let cannot = |why: String| format!("the token in {}: {why}", file.display());
        let text = Zeroizing::new(fs::read_to_string(file).map_err(|error| cannot(error.to_string()))?);
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim())
            .parse()
            .map_err(|_| cannot("it is none".to_owned()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// One named coordinator in a file. Whatever a context lacks must come from flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Context {
    name: String,
    addresses: Vec<SocketAddr>,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Contexts {
    /// The one that is used when nobody says which.
    current: Option<String>,
    list: Vec<Context>,
}

/// Flags and environment over the chosen context.
pub(crate) fn resolve(args: &ConnectionArgs, environment: &Environment) -> Result<Connection, Failure> {
    let context = match find_file(args, environment)? {
        Some((path, text)) => choose(&path, &text, args.context.as_deref())?,
        None if args.context.is_some() => {
            return Err(Failure::Usage {
                what: "--context was given, and there is no configuration file".to_owned(),
                advice: Some(EXAMPLE.to_owned()),
            });
        }
        None => Context::default(),
    };
    let coordinators = if args.coordinators.is_empty() {
        context.addresses
    } else {
        args.coordinators.clone()
    };
    let ca = args.tls_ca.clone().or(context.ca);
    // What was said with the command goes before the file; of one place, the token.
    let token = match &args.token_file {
        Some(token) => Some(token.clone()),
        None => context.token_file.filter(|_| args.tls_cert.is_none()),
    };
    let certificate = args.tls_cert.clone().or(context.certificate);
    let key = args.tls_key.clone().or(context.key);
    let connection = |shows| Connection {
        coordinators: coordinators.clone(),
        shows,
        timeout: args.timeout,
    };
    match (coordinators.is_empty(), ca, token, certificate, key) {
        (false, Some(ca), Some(file), ..) => Ok(connection(Shows::Token { ca, file })),
        (false, Some(ca), None, Some(certificate), Some(key)) => {
            Ok(connection(Shows::Certificate(TlsFiles { ca, certificate, key })))
        }
        (no_address, ca, token, certificate, key) => {
            let no_token = token.is_none();
            let lacking: Vec<_> = [
                (no_address, "a coordinator's address (--coordinator)"),
                (ca.is_none(), "the authority's certificate (--tls-ca)"),
                (
                    no_token && certificate.is_none(),
                    "your operator certificate (--tls-cert; or --token-file)",
                ),
                (no_token && key.is_none(), "its key (--tls-key)"),
            ]
            .into_iter()
            .filter_map(|(lacks, what)| lacks.then_some(what))
            .collect();
            Err(Failure::Usage {
                what: format!("not known yet: {}", lacking.join(", ")),
                advice: Some(EXAMPLE.to_owned()),
            })
        }
    }
}

/// The file that was named, or the first that exists of the user's and the system's.
fn find_file(args: &ConnectionArgs, environment: &Environment) -> Result<Option<(PathBuf, String)>, Failure> {
    let cannot = |path: &Path, error: &io::Error| Failure::Usage {
        what: format!("read configuration {}: {error}", path.display()),
        advice: Some(
            "name a file that can be read with --config; `blackstart get --help` shows one".to_owned(),
        ),
    };
    if let Some(path) = &args.config {
        let text = fs::read_to_string(path).map_err(|error| cannot(path, &error))?;
        return Ok(Some((path.clone(), text)));
    }
    let users = environment
        .config_home
        .as_ref()
        .map(|home| home.join("blackstart/config.yaml"));
    for path in users.into_iter().chain([PathBuf::from(SYSTEM_FILE)]) {
        match fs::read_to_string(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(&path, &error)),
        }
    }
    Ok(None)
}

fn choose(path: &Path, text: &str, wanted: Option<&str>) -> Result<Context, Failure> {
    let contexts = parse(path, text).map_err(|problems| Failure::usage(problems.to_string()))?;
    let names = || {
        contexts
            .list
            .iter()
            .map(|context| context.name.as_str())
            .collect::<Vec<_>>()
    };
    let wanted = match (wanted.or(contexts.current.as_deref()), &contexts.list[..]) {
        (Some(wanted), _) => wanted,
        (None, [only]) => return Ok(only.clone()),
        (None, _) => {
            return Err(Failure::Usage {
                what: format!("{} has several contexts: {}", path.display(), names().join(", ")),
                advice: Some(
                    "choose one with --context NAME, or write `context: NAME` into the file".to_owned(),
                ),
            });
        }
    };
    contexts
        .list
        .iter()
        .find(|context| context.name == wanted)
        .cloned()
        .ok_or_else(|| {
            let advice = match yaml::nearest(wanted, &names()) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("it has: {}", names().join(", ")),
            };
            Failure::Usage {
                what: format!("{} has no context {wanted:?}", path.display()),
                advice: Some(advice),
            }
        })
}

/// Paths in the file are relative to it.
fn parse(path: &Path, text: &str) -> Result<Contexts, Problems> {
    let directory = path.parent().unwrap_or(Path::new(""));
    yaml::read(&path.display().to_string(), text, |top| {
        let current = top.string("context");
        let mut list: Vec<Context> = Vec::new();
        for item in top.required("contexts").and_then(Item::list).unwrap_or_default() {
            let Some(mut table) = item.table() else { continue };
            let context = one(&mut table, directory);
            if list.iter().any(|other| other.name == context.name) {
                table.problem("name", format!("{:?} stands here twice", context.name));
            }
            list.push(context);
        }
        if list.is_empty() {
            top.problem("contexts", "names no context");
        }
        Contexts { current, list }
    })
}

fn one(table: &mut Table, directory: &Path) -> Context {
    let name = table
        .required("name")
        .and_then(|item| item.string())
        .unwrap_or_default();
    let addresses = table.list("addresses").unwrap_or_default();
    let mut path = |key| table.string(key).map(|path| directory.join(path));
    Context {
        name,
        addresses: addresses.iter().filter_map(Item::socket_address).collect(),
        ca: path("ca"),
        certificate: path("certificate"),
        key: path("key"),
        token_file: path("token_file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
context: lab
contexts:
  - {name: lab, addresses: [\"10.0.0.1:7443\", \"10.0.0.2:7443\"], ca: ca.crt, certificate: /pki/ann.crt, key: ann.key}
  - {name: production, addresses: [\"10.9.0.1:7443\"]}
";

    fn with_file(text: &str) -> (tempfile::TempDir, ConnectionArgs) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.yaml");
        fs::write(&path, text).unwrap();
        let args = ConnectionArgs {
            config: Some(path),
            timeout: Duration::from_secs(1),
            ..ConnectionArgs::default()
        };
        (dir, args)
    }

    fn told(result: Result<Connection, Failure>) -> String {
        let failure = result.unwrap_err();
        assert_eq!(failure.exit(), crate::failure::Exit::Usage);
        format!("{failure}\n{}", failure.details().join("\n"))
    }

    #[test]
    fn the_current_context_is_used_and_its_paths_are_relative_to_the_file() {
        let (dir, args) = with_file(FILE);
        let connection = resolve(&args, &Environment::default()).unwrap();
        assert_eq!(connection.coordinators.len(), 2);
        assert_eq!(
            connection.shows.certificates(),
            [Path::new("/pki/ann.crt"), &dir.path().join("ca.crt")]
        );
    }

    #[test]
    fn flags_win_over_the_context() {
        let (_dir, mut args) = with_file(FILE);
        args.coordinators = vec!["[::1]:1".parse().unwrap()];
        args.tls_key = Some("other.key".into());
        let connection = resolve(&args, &Environment::default()).unwrap();
        assert_eq!(connection.coordinators, args.coordinators);
        assert_eq!(key(&connection), Path::new("other.key"));
    }

    fn key(connection: &Connection) -> &Path {
        match &connection.shows {
            Shows::Certificate(tls) => &tls.key,
            Shows::Token { .. } => panic!("a token is shown"),
        }
    }

    #[test]
    fn a_token_goes_before_the_certificate_of_the_same_place_and_a_flag_before_the_file() {
        let (dir, mut args) = with_file(&FILE.replace("key: ann.key}", "key: ann.key, token_file: token}"));
        let connection = resolve(&args, &Environment::default()).unwrap();
        let file = dir.path().join("token");
        assert!(
            connection
                .shows
                .bearer()
                .unwrap_err()
                .contains(&file.display().to_string())
        );
        fs::write(&file, "a.b.c\n").unwrap();
        let bearer = connection.shows.bearer().unwrap().unwrap();
        assert_eq!(bearer.to_str().unwrap(), "Bearer a.b.c");
        assert!(!format!("{bearer:?}").contains("a.b.c"));
        args.tls_cert = Some("/pki/ben.crt".into());
        args.tls_key = Some("/pki/ben.key".into());
        let connection = resolve(&args, &Environment::default()).unwrap();
        assert_eq!(key(&connection), Path::new("/pki/ben.key"));
        args.token_file = Some("/run/token".into());
        let connection = resolve(&args, &Environment::default()).unwrap();
        assert!(matches!(connection.shows, Shows::Token { .. }));
    }

    #[test]
    fn a_mistyped_context_is_recognized() {
        let (_dir, mut args) = with_file(FILE);
        args.context = Some("producton".into());
        assert!(told(resolve(&args, &Environment::default())).contains("did you mean \"production\"?"));
    }

    #[test]
    fn what_is_lacking_is_named() {
        let (_dir, mut args) = with_file(FILE);
        args.context = Some("production".into());
        let told = told(resolve(&args, &Environment::default()));
        assert!(told.contains("--tls-ca") && told.contains("--tls-key"), "{told}");
        assert!(!told.contains("--coordinator)"), "{told}");
    }

    #[test]
    fn several_contexts_and_none_chosen() {
        let (_dir, args) = with_file(&FILE.replace("context: lab\n", ""));
        let told = told(resolve(&args, &Environment::default()));
        assert!(told.contains("several contexts: lab, production"), "{told}");
    }

    #[test]
    fn every_problem_of_the_file_is_told_with_its_line() {
        let (_dir, args) =
            with_file("contexts:\n  - name: a\n    adresses: []\n  - name: a\n    addresses: [host:1]\n");
        let told = told(resolve(&args, &Environment::default()));
        for part in [
            ":3:",
            "did you mean \"addresses\"?",
            "stands here twice",
            "DNS may be down",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn the_users_own_file_is_found() {
        let (dir, mut args) = with_file("");
        args.config = None;
        fs::create_dir(dir.path().join("blackstart")).unwrap();
        fs::write(dir.path().join("blackstart/config.yaml"), FILE).unwrap();
        let environment = Environment {
            config_home: Some(dir.path().to_owned()),
            ..Environment::default()
        };
        let connection = resolve(&args, &environment).unwrap();
        assert_eq!(key(&connection), dir.path().join("blackstart/ann.key"));
    }
}
