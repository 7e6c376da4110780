//! How an object is written on the wire: by the group and version it was asked for, whole, as a row of a table for `kubectl get`, or
//! as its metadata alone (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).

use crate::json::{at, set, take, text};
use crate::refusal::Refusal;
use crate::resources::{Resource, api_version};
use crate::store::versioned;
use crate::table;
use jiff::Timestamp;
use serde_json::{Value, json};

/// The form that a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Whole,
    /// A table, of `meta.k8s.io/v1` or before 1.15 `v1beta1`, and what a row has beside its cells.
    Table(&'static str, Beside),
    Metadata,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Nothing,
    Metadata,
    Object,
}

/// How the objects of one answer are written.
#[derive(Clone, Debug)]
pub(crate) struct Representation {
    pub(crate) resource: &'static Resource,
    api_version: String,
    form: Form,
}

impl Representation {
    /// By the `Accept` header and the query.
    pub(crate) fn choose(
        resource: &'static Resource,
        (group, version): (&str, &str),
        accept: &str,
        include: &str,
        minor: u8,
    ) -> Result<Self, Refusal> {
        let mut form = None;
        for wanted in accept.split(',').map(str::trim) {
            let mut parts = wanted.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<_> = parts.collect();
            let has = |parameter: &str| parameters.contains(&parameter);
            if !matches!(media, "" | "application/json" | "*/*" | "application/*") {
                continue;
            }
            if has("as=Table") {
                let newest = if minor >= 15 { "v=v1" } else { "v=v1beta1" };
                if has(newest) || has("v=v1beta1") && minor < 30 {
                    let beside = match include {
                        "None" => Beside::Nothing,
                        "Object" => Beside::Object,
                        _ => Beside::Metadata,
                    };
                    form = Some(Form::Table(
                        if has("v=v1") {
                            "meta.k8s.io/v1"
                        } else {
                            "meta.k8s.io/v1beta1"
                        },
                        beside,
                    ));
                }
            } else if has("as=PartialObjectMetadata") || has("as=PartialObjectMetadataList") {
                form = Some(Form::Metadata);
            } else {
                form = Some(Form::Whole);
            }
            if form.is_some() {
                break;
            }
        }
        let form = form.ok_or_else(Refusal::not_acceptable)?;
        Ok(Self {
            resource,
            api_version: api_version(group, version),
            form,
        })
    }

    /// One object.
    pub(crate) fn object(&self, object: &Value, now: Timestamp) -> Value {
        match self.form {
            Form::Whole => self.whole(object),
            Form::Metadata => metadata(object),
            Form::Table(version, beside) => {
                let mut table = self.table(version, &[self.row(object, beside, now)]);
                set(
                    &mut table,
                    "/metadata/resourceVersion",
                    text(object, "/metadata/resourceVersion"),
                );
                table
            }
        }
    }

    /// A list with its metadata.
    pub(crate) fn list<'a>(
        &self,
        objects: impl Iterator<Item = &'a Value>,
        list: Value,
        now: Timestamp,
    ) -> Value {
        match self.form {
            Form::Whole => {
                let mut items = Vec::new();
                for object in objects {
                    let mut item = self.whole(object);
                    take(&mut item, "/kind");
                    take(&mut item, "/apiVersion");
                    items.push(item);
                }
                let kind = format!("{}List", self.resource.kind);
                json!({"kind": kind, "apiVersion": self.api_version, "metadata": list, "items": items})
            }
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": list,
                "items": objects.map(metadata).collect::<Vec<_>>(),
            }),
            Form::Table(version, beside) => {
                let rows: Vec<_> = objects.map(|object| self.row(object, beside, now)).collect();
                let mut table = self.table(version, &rows);
                table["metadata"] = list;
                table
            }
        }
    }

    /// The object of a bookmark: a revision and nothing else.
    pub(crate) fn bookmark(&self, revision: u64, last_of_initial: bool) -> Value {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if last_of_initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let bookmark = json!({"metadata": metadata});
        match self.form {
            Form::Whole => versioned(&bookmark, &self.api_version, self.resource.kind),
            Form::Metadata => versioned(&bookmark, "meta.k8s.io/v1", "PartialObjectMetadata"),
            Form::Table(version, beside) => {
                let rows = vec![
                    json!({"cells": [], "object": if beside == Beside::Nothing { Value::Null } else { bookmark }}),
                ];
                self.table(version, &rows)
            }
        }
    }

    fn whole(&self, object: &Value) -> Value {
        match self.api_version.as_str() {
            version @ ("events.k8s.io/v1" | "events.k8s.io/v1beta1") => {
                versioned(&rename(object, |(core, new)| (core, new)), version, "Event")
            }
            version => versioned(object, version, self.resource.kind),
        }
    }

    fn table(&self, version: &str, rows: &[Value]) -> Value {
        json!({
            "kind": "Table", "apiVersion": version, "metadata": {},
            "columnDefinitions": table::columns(self.resource.plural), "rows": rows,
        })
    }

    fn row(&self, object: &Value, beside: Beside, now: Timestamp) -> Value {
        let shown = match beside {
            Beside::Nothing => Value::Null,
            Beside::Metadata => metadata(object),
            Beside::Object => self.whole(object),
        };
        json!({"cells": table::cells(self.resource.plural, object, now), "object": shown})
    }
}

fn metadata(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": at(object, "/metadata")})
}

/// The fields of an event in the core and in `events.k8s.io` (pkg/apis/events/v1/conversion.go).
const EVENT_FIELDS: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("reportingComponent", "reportingController"),
];

fn rename(
    event: &Value,
    direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    let mut renamed = event.clone();
    for (from, to) in EVENT_FIELDS.map(direction) {
        if let Some(value) = take(&mut renamed, &format!("/{from}")) {
            set(&mut renamed, &format!("/{to}"), value);
        }
    }
    renamed
}

/// An object as it is stored, from the form of the version it was sent in.
pub(crate) fn stored(object: Value, group: &str) -> Value {
    if group == "events.k8s.io" {
        rename(&object, |(core, new)| (new, core))
    } else {
        object
    }
}
