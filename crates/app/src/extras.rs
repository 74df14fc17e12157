//! Completion scripts and manual pages, made from the command line's own description.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;

use crate::App;
use crate::args::Cli;
use crate::failure::{Doing as _, Outcome};

/// Prints the completion script of a shell.
pub(crate) fn completions(app: &App, shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "candor", &mut script);
    app.ui.out(String::from_utf8_lossy(&script).trim_end())
}

/// Writes a page per command into `folder`.
pub(crate) fn man(app: &App, folder: &Path) -> Outcome {
    let what = || format!("write manual pages into {}", folder.display());
    fs::create_dir_all(folder).doing(what)?;
    let pages = clap_mangen::generate_to(Cli::command(), folder);
    pages.doing(what)?;
    app.ui
        .note(&format!("manual pages are in {}", folder.display()));
    Ok(())
}
