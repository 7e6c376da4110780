//! Lists, whole or page by page, and the beginning of watches.

use crate::api::{Answer, Request};
use crate::json::name;
use crate::refusal::Refusal;
use crate::represent::Representation;
use crate::request::Asked;
use crate::resources::Resource;
use crate::selector::Selector;
use crate::shared::Shared;
use crate::watch::{Start, Watch};
use crate::world::World;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A list or a watch.
pub(crate) fn collection(
    shared: &Arc<Shared>,
    request: &Request<'_>,
    resource: &'static Resource,
) -> Result<Answer, Refusal> {
    let asked = request.asked;
    let fields = asked.param("fieldSelector");
    // The core names an event's object `involvedObject`, events.k8s.io calls it `regarding`.
    let fields = if asked.group == "events.k8s.io" {
        fields.replace("regarding.", "involvedObject.")
    } else {
        fields.to_owned()
    };
    let selector = Selector::parse(resource.plural, asked.param("labelSelector"), &fields)?;
    let space = Some(asked.namespace.clone()).filter(|space| resource.namespaced && !space.is_empty());
    let include = asked.param("includeObject");
    let minor = shared.read(|world| world.release.minor);
    let form = Representation::choose(
        resource,
        (&asked.group, &asked.version),
        request.accept,
        include,
        minor,
    )?;
    let revision = asked.param("resourceVersion");
    let since = match revision {
        "" => 0,
        given => given.parse().map_err(|_| {
            Refusal::bad_request(format!(
                "Invalid value: \"{given}\": strconv.ParseUint: parsing \"{given}\": invalid syntax"
            ))
        })?,
    };
    shared.write(|world| {
        if asked.verb == "list" {
            if since > world.store.revision() {
                return Err(Refusal::too_large(since, world.store.revision()));
            }
            return list(world, asked, &form, &selector, space.as_deref())
                .map(|list| Answer::Object(200, list));
        }
        let initial = asked.param("sendInitialEvents") == "true";
        let bookmarks = asked.param("allowWatchBookmarks") == "true";
        let start = Start {
            revision: since,
            initial,
            initial_bookmark: initial && bookmarks,
        };
        let seconds = asked.param("timeoutSeconds").parse().unwrap_or(1800);
        let watch = Watch::begin(
            shared,
            world,
            form,
            selector,
            space,
            start,
            (bookmarks, Duration::from_secs(seconds)),
        );
        Ok(Answer::Watch(Box::new(watch)))
    })
}

/// A page of a list. A continue token says the revision of the first page and the key that comes next; the pages show what is stored
/// when they are read, not when the first was.
fn list(
    world: &World,
    asked: &Asked,
    form: &Representation,
    selector: &Selector,
    space: Option<&str>,
) -> Result<Value, Refusal> {
    let mut revision = world.store.revision();
    let mut first = (String::new(), String::new());
    if let Some((since, rest)) = asked.param("continue").split_once('~') {
        revision = since
            .parse()
            .map_err(|_| Refusal::bad_request("continue key is not valid"))?;
        if revision < world.store.compacted() {
            return Err(Refusal::continue_expired());
        }
        let (space, name) = rest.split_once('~').unwrap_or(("", rest));
        first = (space.to_owned(), name.to_owned());
    }
    let limit = asked
        .param("limit")
        .parse()
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let key = |object: &Value| (crate::json::namespace(object).to_owned(), name(object).to_owned());
    let mut matching = world
        .store
        .list(form.resource.plural, space)
        .map(|object| &**object)
        .filter(|object| selector.matches(object) && key(object) >= first);
    let page: Vec<&Value> = matching.by_ref().take(limit).collect();
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some(next) = matching.next() {
        let (space, name) = key(next);
        metadata["continue"] = json!(format!("{revision}~{space}~{name}"));
        metadata["remainingItemCount"] = json!(matching.count() + 1);
    }
    Ok(form.list(page.into_iter(), metadata, world.now))
}
