//! `prkdb man`: the manual pages, made from the tree of commands.

use std::{fs, path::PathBuf};

use clap_mangen::Man;

use crate::commands::{
    exit,
    failure::{Failure, Result},
    help,
    session::Session,
    tree::cli,
    version,
};

const EXAMPLES: &str = "\
Examples:
  prkdb man batch-put | man -l -
  prkdb man --dir ./man";

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Page, such as put or collection-create; without it, the page of prkdb
    #[arg(conflicts_with = "dir")]
    page: Option<String>,
    /// Write all pages into a directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// One page.
#[derive(Clone, Debug)]
pub struct Page {
    /// The name of its file, such as `prkdb-put.1`.
    pub file: String,
    /// Its text, as roff.
    pub text: Vec<u8>,
}

/// Runs `man`.
///
/// # Errors
/// 2 where there is no such page, 13 where it cannot be written.
pub fn run(session: &mut Session, args: &Args) -> Result {
    session.output.refuse_special_formats()?;
    let pages = pages().map_err(|error| Failure::io("make the manual", &error))?;
    let Some(dir) = &args.dir else {
        let name = args.page.as_deref().unwrap_or_default();
        let short = name.strip_prefix("prkdb").unwrap_or(name).trim_start_matches('-');
        let file = if short.is_empty() { "prkdb.1".to_owned() } else { format!("prkdb-{short}.1") };
        let page = pages.iter().find(|page| page.file == file).ok_or_else(|| {
            let names: Vec<_> = pages.iter().map(|page| page.file.trim_end_matches(".1")).collect();
            Failure::usage(format!("no manual page '{name}'"))
                .hint(format!("one of: {}", names.join(", ")))
        })?;
        return session.output.bytes(&page.text);
    };
    fs::create_dir_all(dir)
        .map_err(|error| Failure::io(format_args!("create {}", dir.display()), &error))?;
    for page in &pages {
        let path = dir.join(&page.file);
        fs::write(&path, &page.text)
            .map_err(|error| Failure::io(format_args!("write {}", path.display()), &error))?;
    }
    session.output.confirmation(&format!("{} pages in {}", pages.len(), dir.display()))
}

/// Returns every page, the root's first.
///
/// # Errors
/// Those of a writer into memory: none.
pub fn pages() -> std::io::Result<Vec<Page>> {
    let mut root = cli();
    root.build();
    let mut pages = Vec::new();
    add_pages(&root, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &clap::Command, pages: &mut Vec<Page>) -> std::io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .section("1")
        .date("")
        .source(format!("prkdb {}", version::PACKAGE))
        .manual("PrkDB Manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    text.extend(section("EXIT STATUS", &exit_status()).into_bytes());
    text.extend(section("ENVIRONMENT", &variables()).into_bytes());
    text.extend(section("EXAMPLES", &example_lines(&examples)).into_bytes());
    text.extend(see_also(&name).into_bytes());
    pages.push(Page { file: format!("{name}.1"), text });
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        add_pages(sub, pages)?;
    }
    Ok(())
}

/// A section of lines that are printed as they stand.
fn section(title: &str, lines: &str) -> String {
    let mut text = format!(".SH \"{title}\"\n.nf\n");
    for line in lines.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
        // A line that begins with a dot would be a request.
        if line.starts_with('.') {
            text.push_str("\\&");
        }
        text.push_str(&line);
        text.push('\n');
    }
    text.push_str(".fi\n");
    text
}

fn exit_status() -> String {
    let row = |row: &exit::ExitCode| format!("{:<4} {:<14} {}", row.code, row.name, row.when);
    exit::TABLE.iter().map(row).collect::<Vec<_>>().join("\n")
}

fn variables() -> String {
    help::environment()
}

fn example_lines(after_help: &str) -> String {
    after_help.lines().filter(|line| *line != "Examples:").collect::<Vec<_>>().join("\n")
}

fn see_also(name: &str) -> String {
    let others = if name == "prkdb" {
        "prkdb\\-serve(1), prkdb\\-put(1), prkdb\\-get(1)"
    } else {
        "prkdb(1)"
    };
    format!(".SH \"SEE ALSO\"\n{others}\n")
}
