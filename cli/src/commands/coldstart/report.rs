//! `blackstart coldstart report`: a run as a document to keep.

use std::fs;
use std::path::PathBuf;

use clap::Args;

use super::super::Context;
use super::{latest, of_known};
use crate::failure::Failure;
use crate::output::note;
use crate::report::{Form, Language, document};

/// Of which run, and in what form.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Its id; the latest cold start if not given
    run: Option<String>,
    /// Write it to this file; its ending tells the form: .md, .svg, .html
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Its form; Markdown if nothing else tells
    #[arg(long, value_enum)]
    form: Option<Form>,
    /// Its language
    #[arg(long, value_enum, default_value = "en")]
    lang: Language,
}

pub(super) async fn run(args: ReportArgs, context: &mut Context<'_>) -> Result<(), Failure> {
    let form = form(&args)?;
    let mut fleet = context.connect().await?;
    let id = match args.run {
        Some(id) => id,
        None => latest(&fleet.runs().await?)?,
    };
    let answer = fleet.run(&id).await;
    let detail = of_known(&mut fleet, answer).await?;
    let text = document(&detail, form, args.lang);
    let Some(file) = args.file else {
        return Ok(context.output.raw(text.as_bytes())?);
    };
    fs::write(&file, text).map_err(|error| Failure::other(format!("write {}: {error}", file.display())))?;
    note(format_args!("The report of {id} is in {}", file.display()));
    Ok(())
}

fn form(args: &ReportArgs) -> Result<Form, Failure> {
    match (args.form, &args.file) {
        (Some(form), _) => Ok(form),
        (None, None) => Ok(Form::Markdown),
        (None, Some(file)) => Form::of(file).ok_or_else(|| Failure::Usage {
            what: format!("{} does not end with .md, .svg or .html", file.display()),
            advice: Some("give --form markdown, svg or html".to_owned()),
        }),
    }
}
