//! What a Redfish service says, and what is asked of it. Pure.
//!
//! By DMTF's DSP0266 (protocol) and DSP0268 (schemas): `GET /redfish/v1/Systems` lists the machines behind a service, each of which is a
//! `ComputerSystem` with a `PowerState`, and is reset by a POST to the target of its action `#ComputerSystem.Reset`.

use std::fmt;

use serde::Deserialize;

use super::error::{BmcError, shown};

/// The machines behind a service (DSP0266, "Service root": the path is fixed by the service root's `Systems`, and is this everywhere).
pub(super) const SYSTEMS: &str = "/redfish/v1/Systems";
/// Power is cut at once, whatever the machine does (DSP0268, `ResetType`).
pub(super) const FORCE_OFF: &str = "ForceOff";
/// More machines behind one service than any chassis has.
const MOST_SYSTEMS: usize = 64;

/// `PowerState` of a `ComputerSystem` (DSP0268, Resource schema): only [`PowerState::Off`] says that it runs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerState {
    /// It has power; a machine that hangs has it too.
    On,
    /// It is off. Its management controller may have power.
    Off,
    /// Between off and on.
    PoweringOn,
    /// Between on and off: it may still write.
    PoweringOff,
    /// Its processors stand still, and may go on.
    Paused,
    /// The service does not say, or in a word that is not known here.
    NotKnown,
}

impl PowerState {
    fn named(name: Option<&str>) -> Self {
        match name {
            Some("On") => Self::On,
            Some("Off") => Self::Off,
            Some("PoweringOn") => Self::PoweringOn,
            Some("PoweringOff") => Self::PoweringOff,
            Some("Paused") => Self::Paused,
            Some(_) | None => Self::NotKnown,
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "On",
            Self::Off => "Off",
            Self::PoweringOn => "PoweringOn",
            Self::PoweringOff => "PoweringOff",
            Self::Paused => "Paused",
            Self::NotKnown => "not known",
        })
    }
}

/// A machine, as its service tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct System {
    pub(crate) state: PowerState,
    /// The machine's own, as in SMBIOS; a service that does not know it says none.
    pub(crate) uuid: Option<String>,
    /// Where a reset is posted to, if its power can be cut.
    pub(crate) reset: Result<String, String>,
}

#[derive(Deserialize)]
struct Link {
    #[serde(rename = "@odata.id")]
    path: String,
}

#[derive(Deserialize)]
struct Collection {
    #[serde(rename = "Members")]
    members: Vec<Link>,
}

#[derive(Deserialize)]
struct ComputerSystem {
    #[serde(rename = "PowerState")]
    power: Option<serde_json::Value>,
    #[serde(rename = "UUID")]
    uuid: Option<serde_json::Value>,
    #[serde(rename = "Actions", default)]
    actions: Actions,
}

#[derive(Default, Deserialize)]
struct Actions {
    #[serde(rename = "#ComputerSystem.Reset")]
    reset: Option<Reset>,
}

#[derive(Deserialize)]
struct Reset {
    target: Option<String>,
    #[serde(rename = "ResetType@Redfish.AllowableValues")]
    allowed: Option<Vec<String>>,
}

/// The one machine behind a service.
pub(crate) fn only_system(body: &[u8]) -> Result<String, BmcError> {
    let read: Collection = serde_json::from_slice(body).map_err(|error| not_redfish(SYSTEMS, &error))?;
    let paths: Vec<_> = read
        .members
        .into_iter()
        .take(MOST_SYSTEMS)
        .map(|one| one.path)
        .collect();
    match &paths[..] {
        [one] if is_path(one) => Ok(one.clone()),
        [one] => Err(BmcError::NotRedfish(format!(
            "its only system is at {}, which is no path of it",
            shown(one)
        ))),
        [] => Err(BmcError::NotRedfish(format!("{SYSTEMS} has no member"))),
        many => Err(BmcError::Systems(
            many.iter().map(|path| shown(path)).collect::<Vec<_>>().join(", "),
        )),
    }
}

/// A `ComputerSystem`.
pub(crate) fn system(path: &str, body: &[u8]) -> Result<System, BmcError> {
    let read: ComputerSystem = serde_json::from_slice(body).map_err(|error| not_redfish(path, &error))?;
    let Some(power) = read.power else {
        return Err(BmcError::NotRedfish(format!(
            "{} tells no PowerState: is it a system? (GET {SYSTEMS} lists them)",
            shown(path)
        )));
    };
    let reset = match read.actions.reset {
        None => Err("it offers no #ComputerSystem.Reset".to_owned()),
        Some(Reset {
            allowed: Some(allowed),
            ..
        }) if !allowed.iter().any(|one| one == FORCE_OFF) => Err(format!(
            "it offers {}, and no {FORCE_OFF}",
            shown(&allowed.join(", "))
        )),
        Some(Reset {
            target: Some(target), ..
        }) if is_path(&target) => Ok(target),
        Some(Reset { target, .. }) => Err(format!(
            "its #ComputerSystem.Reset is at {:?}, which is no path of it",
            target.as_deref().map(shown)
        )),
    };
    Ok(System {
        state: PowerState::named(power.as_str()),
        uuid: read.uuid.as_ref().and_then(serde_json::Value::as_str).map(shown),
        reset,
    })
}

/// A path of the service itself: nothing leads elsewhere, since credentials go with every request.
pub fn is_path(text: &str) -> bool {
    text.starts_with("/redfish/")
        && text.len() <= 512
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#?".contains(&byte))
}

fn not_redfish(path: &str, error: &serde_json::Error) -> BmcError {
    BmcError::NotRedfish(format!(
        "its answer at {} is not as Redfish has it: {error}",
        shown(path)
    ))
}

/// Whether two UUIDs are of one machine; `None`: one of them says nothing. The first three fields of an SMBIOS UUID are little-endian
/// since SMBIOS 2.6 (DSP0134, 7.2.1), and firmware before it, and tools, have them the other way round.
pub fn same_machine(one: &str, other: &str) -> Option<bool> {
    let (one, other) = (digits(one)?, digits(other)?);
    Some(one == other || swapped(&one) == other)
}

/// The 32 digits; `None`: it is none, or one that stands for none.
fn digits(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| *byte != b'-')
        .map(|byte| byte.to_ascii_lowercase())
        .collect();
    let is_one = digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit);
    let says_nothing = digits.iter().all(|byte| *byte == digits[0]);
    (is_one && !says_nothing).then_some(digits)
}

fn swapped(digits: &[u8]) -> Vec<u8> {
    let field = |from: usize, to: usize| digits[from..to].chunks(2).rev().flatten();
    let first = field(0, 8).chain(field(8, 12)).chain(field(12, 16));
    first.chain(&digits[16..]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r##"{
        "@odata.id": "/redfish/v1/Systems/1", "UUID": "4c4c4544-0042-3510-8051-b2c04f4d3732", "PowerState": "Off",
        "Actions": {"#ComputerSystem.Reset": {
            "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            "ResetType@Redfish.AllowableValues": ["On", "ForceOff"]}}}"##;

    #[test]
    fn a_system_says_its_power_its_uuid_and_where_it_is_reset() {
        let read = system("/redfish/v1/Systems/1", WHOLE.as_bytes()).unwrap();
        assert_eq!(read.state, PowerState::Off);
        assert_eq!(read.uuid.as_deref(), Some("4c4c4544-0042-3510-8051-b2c04f4d3732"));
        assert_eq!(
            read.reset.unwrap(),
            "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset"
        );
    }

    #[test]
    fn only_the_word_off_is_off() {
        for (said, expected) in [
            (r#""Off""#, PowerState::Off),
            (r#""On""#, PowerState::On),
            (r#""PoweringOff""#, PowerState::PoweringOff),
            (r#""off""#, PowerState::NotKnown),
            ("null", PowerState::NotKnown),
            ("false", PowerState::NotKnown),
            (r#"["Off"]"#, PowerState::NotKnown),
        ] {
            let body = format!(r#"{{"PowerState": {said}}}"#);
            // Who says `null` does not know, like one that says nothing.
            match system("/redfish/v1/Systems/1", body.as_bytes()) {
                Ok(read) => assert_eq!(read.state, expected, "{said}"),
                Err(error) => assert_eq!(said, "null", "{error}"),
            }
        }
    }

    #[test]
    fn a_reset_that_leads_elsewhere_or_cannot_cut_power_is_none() {
        for (from, to, why) in [
            (
                "/redfish/v1/Systems/1/Actions",
                "https://elsewhere/redfish",
                "no path of it",
            ),
            (
                "/redfish/v1/Systems/1/Actions",
                "//elsewhere/redfish",
                "no path of it",
            ),
            (r#""ForceOff""#, r#""GracefulShutdown""#, "no ForceOff"),
            (
                "#ComputerSystem.Reset",
                "#Other.Reset",
                "offers no #ComputerSystem.Reset",
            ),
        ] {
            let body = WHOLE.replace(from, to);
            let reset = system("/redfish/v1/Systems/1", body.as_bytes()).unwrap().reset;
            assert!(reset.as_ref().is_err_and(|said| said.contains(why)), "{reset:?}");
        }
    }

    #[test]
    fn the_only_system_is_taken_and_of_several_none_is_guessed() {
        let one = br#"{"Members": [{"@odata.id": "/redfish/v1/Systems/a"}]}"#;
        assert_eq!(only_system(one).unwrap(), "/redfish/v1/Systems/a");
        let two = br#"{"Members": [{"@odata.id": "/redfish/v1/Systems/a"}, {"@odata.id": "/redfish/v1/Systems/b"}]}"#;
        assert!(matches!(only_system(two), Err(BmcError::Systems(names)) if names.contains("Systems/b")));
        for wrong in [
            "{}",
            "[]",
            "<html>",
            "",
            r#"{"Members": []}"#,
            r#"{"Members": [{"@odata.id": "http://x/"}]}"#,
        ] {
            let error = only_system(wrong.as_bytes()).unwrap_err();
            assert!(matches!(error, BmcError::NotRedfish(_)), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_machine_is_known_by_its_uuid_in_either_order_of_bytes() {
        let node = "4C4C4544-0042-3510-8051-B2C04F4D3732";
        for (bmc, expected) in [
            ("4c4c4544-0042-3510-8051-b2c04f4d3732", Some(true)),
            ("44454c4c-4200-1035-8051-b2c04f4d3732", Some(true)),
            ("4c4c4544-0042-3510-8051-b2c04f4d3733", Some(false)),
            ("", None),
            ("00000000-0000-0000-0000-000000000000", None),
            ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", None),
            ("To be filled by O.E.M.", None),
        ] {
            assert_eq!(same_machine(bmc, node), expected, "{bmc}");
        }
    }
}
