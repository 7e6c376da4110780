//! Certificates as they are made, and what the linter found.

use super::table::{Cell, Line, Table, Tint};
use super::words::count;
use crate::view::{Certificate, Lint};

/// What was made, and what to do with it.
pub(crate) fn made(certificate: &Certificate) -> Vec<Line> {
    let role = certificate.role.unwrap_or("certificate");
    let name = certificate.name.as_deref().unwrap_or(&certificate.authority);
    let until = certificate.ends_at.strftime("%Y-%m-%d");
    let mut lines = vec![
        Line::tinted(format!("{role} {name}"), Tint::Bold).and(format!(", valid until {until}"), Tint::Plain),
        Line::new(format!("  certificate  {}", certificate.file)),
    ];
    if let Some(key) = &certificate.key_file {
        lines.push(Line::new(format!("  key          {key}")));
    }
    if certificate.role == Some("authority") {
        lines.push(Line::new("Keep the key offline: whoever has it can be anybody."));
    }
    lines
}

/// A finding a line, in the form that editors jump to; then the fleet in short.
pub(crate) fn lint(lint: &Lint) -> Vec<Line> {
    let mut lines = Vec::new();
    let kinds = [
        (&lint.errors, "error", Tint::Bad),
        (&lint.warnings, "warning", Tint::Warning),
    ];
    for (findings, word, tint) in kinds {
        for finding in findings {
            let field = if finding.field.is_empty() {
                String::new()
            } else {
                format!("{}: ", finding.field)
            };
            lines.push(
                Line::new(format!("{}:{}:{}:", lint.file, finding.line, finding.column))
                    .and(format!(" {word}: "), tint)
                    .and(format!("{field}{}", finding.message), Tint::Plain),
            );
        }
    }
    if !lint.errors.is_empty() {
        return lines;
    }
    let mut table = Table::new(["CLUSTER", "AFTER", "CONTROL PLANES", "WORKERS", "ETCD"]);
    for cluster in &lint.clusters {
        table.row(vec![
            Cell::new(&cluster.name),
            Cell::new(cluster.after.join(", ")),
            Cell::new(cluster.control_planes.to_string()),
            Cell::new(cluster.workers.to_string()),
            Cell::new(cluster.etcd.to_string()),
        ]);
    }
    lines.extend(table.lines());
    lines.push(Line::new(format!(
        "{}: no error, {}",
        lint.file,
        count(lint.warnings.len(), "warning")
    )));
    lines
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use blackstart_coordinator::inventory::parse;

    use super::super::table::plain;
    use super::*;

    const FLEET: &str = "\
clusters:
  - name: business
    after: [management]
    nodes: [{address: 10.0.1.1, role: control-plane}, {address: 10.0.1.2}]
  - name: management
    nodes: [{address: 10.0.0.1, role: control-plane}, {address: 10.0.0.2, role: control-plane}]
";

    #[test]
    fn a_usable_fleet_is_shown_in_its_order_below_the_warnings() {
        let loaded = parse("f.yaml", FLEET).unwrap();
        let shown = plain(&lint(&Lint::passed(
            Path::new("f.yaml"),
            &loaded.inventory,
            loaded.warnings,
        )));
        assert_eq!(
            shown,
            "\
f.yaml:5:11: warning: clusters[1].name: has 2 control planes: an even number survives no more losses than 1, and one more can fail
CLUSTER      AFTER        CONTROL PLANES   WORKERS   ETCD
management   -            2                0         0
business     management   1                1         0
f.yaml: no error, 1 warning
"
        );
    }

    #[test]
    fn errors_stand_alone() {
        let problems = parse("f.yaml", &FLEET.replace("[management]", "[managment]")).unwrap_err();
        let shown = plain(&lint(&Lint::failed(Path::new("f.yaml"), problems.list)));
        assert_eq!(
            shown,
            "f.yaml:3:13: error: clusters[0].after[0]: there is no cluster managment; did you mean management?\n"
        );
    }
}
