//! From a request to its answer: which verb of which resource it is.

use crate::access;
use crate::collection::collection;
use crate::json::{at, name, set, text};
use crate::metrics;
use crate::patch;
use crate::refusal::Refusal;
use crate::represent::{self, Representation};
use crate::request::Asked;
use crate::resources::{Resource, served};
use crate::selector::Selector;
use crate::shared::Shared;
use crate::verbs::{DeleteOptions, Part};
use crate::watch::Watch;
use crate::world::World;
use crate::{User, discovery};
use hyper::body::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

/// An answer that is no refusal.
pub(crate) enum Answer {
    /// JSON with a status code.
    Object(u16, Value),
    /// Plain text.
    Text(String),
    /// A stream of events.
    Watch(Box<Watch>),
}

/// A request with what its headers and body say.
pub(crate) struct Request<'a> {
    pub(crate) asked: &'a Asked,
    pub(crate) user: &'a User,
    pub(crate) accept: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a Bytes,
}

/// Answers a request that was let through.
pub(crate) fn answer(shared: &Arc<Shared>, request: &Request<'_>) -> Result<Answer, Refusal> {
    let asked = request.asked;
    let release = shared.read(|world| world.release);
    if !asked.is_resource {
        return match asked.path.trim_end_matches('/') {
            "/healthz" | "/livez" | "/readyz" if asked.query.contains_key("verbose") => {
                let check = &asked.path[1..];
                Ok(Answer::Text(format!(
                    "[+]ping ok\n[+]log ok\n[+]etcd ok\n{check} check passed\n"
                )))
            }
            "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/readyz/etcd" | "/livez/ping" => {
                Ok(Answer::Text("ok".into()))
            }
            _ => discovery::answer(asked, release, shared.metrics)
                .map(|found| Answer::Object(200, found))
                .ok_or_else(Refusal::no_such_path),
        };
    }
    match (asked.group.as_str(), asked.resource.as_str()) {
        ("metrics.k8s.io", _) if shared.metrics => {
            return shared
                .write(|world| metrics::answer(world, asked))
                .map(|found| Answer::Object(200, found));
        }
        ("authorization.k8s.io", "selfsubjectaccessreviews") => return review(shared, request),
        ("authentication.k8s.io", "selfsubjectreviews") => {
            let info = json!({"username": request.user.name, "groups": request.user.groups});
            let mut review = body(request)?;
            set(&mut review, "/status/userInfo", info);
            return Ok(Answer::Object(201, review));
        }
        _ => {}
    }
    let resource =
        served(release, &asked.group, &asked.version, &asked.resource).ok_or_else(Refusal::no_such_path)?;
    let known = asked.subresource.is_empty()
        || resource.has(&asked.subresource) && (asked.subresource != "resize" || release.minor >= 33);
    if !known || resource.namespaced && asked.namespace.is_empty() && !matches!(asked.verb, "list" | "watch")
    {
        return Err(Refusal::no_such_path());
    }
    if matches!(asked.verb, "list" | "watch") {
        return collection(shared, request, resource);
    }
    let include = asked.param("includeObject");
    let form = Representation::choose(
        resource,
        (&asked.group, &asked.version),
        request.accept,
        include,
        release.minor,
    )?;
    let dry = asked.param("dryRun") == "All";
    shared.write(|world| {
        let mut scratch = dry.then(|| world.clone());
        one(scratch.as_mut().unwrap_or(world), request, resource, &form)
    })
}

fn body(request: &Request<'_>) -> Result<Value, Refusal> {
    if !matches!(
        request.content_type.split(';').next().unwrap_or_default().trim(),
        "" | "application/json"
    ) {
        return Err(Refusal::unsupported_body());
    }
    serde_json::from_slice(request.body).map_err(|error| {
        Refusal::bad_request(format!("the body of the request could not be decoded: {error}"))
    })
}

/// The object of a body, which has to be of the version that the path is of.
fn object(request: &Request<'_>, expected: &str) -> Result<Value, Refusal> {
    let object = body(request)?;
    let given = text(&object, "/apiVersion");
    if !given.is_empty() && given != expected {
        let message = format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        );
        return Err(Refusal::bad_request(message));
    }
    Ok(represent::stored(object, &request.asked.group))
}

fn options(request: &Request<'_>) -> Result<DeleteOptions, Refusal> {
    let given = if request.body.is_empty() {
        Value::Null
    } else {
        body(request)?
    };
    let mut options = DeleteOptions::parse(&given);
    let asked = request.asked;
    if let Ok(seconds) = asked.param("gracePeriodSeconds").parse() {
        options.grace_seconds = Some(seconds);
    }
    if !asked.param("propagationPolicy").is_empty() {
        asked
            .param("propagationPolicy")
            .clone_into(&mut options.propagation);
    }
    Ok(options)
}

/// A request about one object.
fn one(
    world: &mut World,
    request: &Request<'_>,
    resource: &'static Resource,
    form: &Representation,
) -> Result<Answer, Refusal> {
    let asked = request.asked;
    let (space, called) = if resource.namespaced {
        (asked.namespace.as_str(), asked.name.as_str())
    } else {
        ("", asked.name.as_str())
    };
    let expected = crate::resources::api_version(&asked.group, &asked.version);
    let now = world.now;
    let shown = |code, object: &Value| Ok(Answer::Object(code, form.object(object, now)));
    match (asked.verb, asked.subresource.as_str()) {
        ("get", "log") => world.log(space, called).map(Answer::Text),
        ("get", "scale") => Ok(Answer::Object(200, world.scale(resource, space, called)?)),
        ("get", _) => {
            let found = world.get(resource.plural, space, called);
            shown(200, &*found.ok_or_else(|| Refusal::not_found(resource, called))?)
        }
        ("create", "eviction") => evict(world, request),
        ("create", "binding") => {
            world.bind(space, called, text(&body(request)?, "/target/name"))?;
            Ok(Answer::Object(201, success(Value::Null, 201)))
        }
        ("create", "") if called.is_empty() => {
            let object = object(request, &expected)?;
            shown(201, &*world.create(resource, space, object)?)
        }
        ("update" | "patch", "scale") => {
            let scale = world.scale(resource, space, called)?;
            let new = if asked.verb == "patch" {
                patched(request, &scale)?
            } else {
                body(request)?
            };
            Ok(Answer::Object(
                200,
                world.set_scale(resource, space, called, &new)?,
            ))
        }
        ("update", part) => {
            let object = object(request, &expected)?;
            shown(
                200,
                &*world.update(resource, space, called, object, part_of(part)?)?,
            )
        }
        ("patch", part) => {
            let old = world
                .get(resource.plural, space, called)
                .ok_or_else(|| Refusal::not_found(resource, called))?;
            let new = patched(request, &old)?;
            shown(200, &*world.update(resource, space, called, new, part_of(part)?)?)
        }
        ("delete", "") => {
            let (object, gone) = world.delete(resource, space, called, &options(request)?)?;
            // Pods come back themselves (ReturnDeletedObject), other things that are gone as a word of success.
            if gone && resource.plural != "pods" {
                let mut details =
                    json!({"name": called, "kind": resource.plural, "uid": at(&object, "/metadata/uid")});
                if !resource.group.is_empty() {
                    details["group"] = json!(resource.group);
                }
                return Ok(Answer::Object(200, success(details, 0)));
            }
            shown(200, &object)
        }
        ("deletecollection", "") => {
            let selector = Selector::parse(
                resource.plural,
                asked.param("labelSelector"),
                asked.param("fieldSelector"),
            )?;
            let options = options(request)?;
            let space = resource.namespaced.then_some(space);
            let selected: Vec<_> = world
                .store
                .list(resource.plural, space)
                .filter(|object| selector.matches(object))
                .cloned()
                .collect();
            for object in &selected {
                world.delete(resource, crate::json::namespace(object), name(object), &options)?;
            }
            let metadata = json!({"resourceVersion": world.store.revision().to_string()});
            Ok(Answer::Object(
                200,
                form.list(selected.iter().map(|object| &**object), metadata, now),
            ))
        }
        _ => Err(Refusal::method_not_allowed()),
    }
}

fn part_of(subresource: &str) -> Result<Part, Refusal> {
    match subresource {
        "" | "finalize" => Ok(Part::Main),
        "status" => Ok(Part::Status),
        "resize" => Ok(Part::Resize),
        _ => Err(Refusal::method_not_allowed()),
    }
}

fn patched(request: &Request<'_>, old: &Value) -> Result<Value, Refusal> {
    let kind = patch::Kind::parse(request.content_type)?;
    let patch: Value = serde_json::from_slice(request.body)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    kind.apply(old, &patch)
}

fn success(details: Value, code: u16) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    if !details.is_null() {
        status["details"] = details;
    }
    if code != 0 {
        status["code"] = json!(code);
    }
    status
}

fn evict(world: &mut World, request: &Request<'_>) -> Result<Answer, Refusal> {
    let eviction = body(request)?;
    let asked = request.asked;
    let version = text(&eviction, "/apiVersion");
    let known = if world.release.minor >= 22 {
        matches!(version, "policy/v1" | "policy/v1beta1" | "")
    } else {
        matches!(version, "policy/v1beta1" | "")
    };
    if !known {
        let scheme = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30";
        let message =
            format!("no kind \"Eviction\" is registered for version \"{version}\" in scheme \"{scheme}\"");
        return Err(Refusal::bad_request(message));
    }
    if !name(&eviction).is_empty() && name(&eviction) != asked.name {
        return Err(Refusal::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    world.evict(
        &asked.namespace,
        &asked.name,
        &DeleteOptions::parse(at(&eviction, "/deleteOptions")),
    )?;
    Ok(Answer::Object(201, success(Value::Null, 201)))
}

/// Whether the user may do what a `SelfSubjectAccessReview` asks about.
fn review(shared: &Arc<Shared>, request: &Request<'_>) -> Result<Answer, Refusal> {
    let mut review = body(request)?;
    let attributes = at(&review, "/spec/resourceAttributes");
    let part = |name: &str| text(attributes, &format!("/{name}")).to_owned();
    let mut asked = Asked {
        is_resource: !attributes.is_null(),
        group: part("group"),
        resource: part("resource"),
        subresource: part("subresource"),
        namespace: part("namespace"),
        name: part("name"),
        path: text(&review, "/spec/nonResourceAttributes/path").to_owned(),
        ..Asked::default()
    };
    let verb = if asked.is_resource {
        part("verb")
    } else {
        text(&review, "/spec/nonResourceAttributes/verb").to_owned()
    };
    let verbs = [
        "get",
        "list",
        "watch",
        "create",
        "update",
        "patch",
        "delete",
        "deletecollection",
    ];
    asked.verb = verbs.into_iter().find(|known| *known == verb).unwrap_or("*");
    let rbac = crate::shared::lock(&shared.access).rbac;
    let allowed = !rbac || shared.read(|world| access::allows(&world.store, request.user, &asked));
    set(&mut review, "/status", json!({"allowed": allowed}));
    Ok(Answer::Object(201, review))
}
