//! `tracer man`: manual pages.

use std::io::{self, Write};

use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    args::{self, ManOptions},
    exit::Failure,
};
use crate::{
    diagnose::{catalogue, cause::Cause, row::Group},
    flow::fate::Fate,
};

/// The exit statuses and their meanings.
const STATUS: &[(&str, &str)] = &[
    (
        "0",
        "Success, even if the reader of the output went away or a recording is damaged.",
    ),
    ("1", "Failure; standard error names the reason."),
    ("2", "Wrong arguments."),
    ("3", "A connection, or a hazard, matched --fail-on."),
    (
        "69",
        "tracer cannot trace on this kernel; standard error names what is missing.",
    ),
    ("77", "A privilege is missing; standard error names it."),
    (
        "130",
        "A second signal ended tracing before it could shut down cleanly.",
    ),
];

/// Prints the page of tracer, or of one command.
pub(super) fn run(options: &ManOptions) -> Result<(), Failure> {
    let mut page = Vec::new();
    write(options, &mut page)?;
    let mut out = io::stdout().lock();
    out.write_all(&page)?;
    Ok(out.flush()?)
}

fn write(options: &ManOptions, out: &mut dyn Write) -> Result<(), Failure> {
    let mut tracer = args::full_command();
    tracer.build();
    let Some(name) = &options.command else {
        let man = Man::new(args::command());
        man.render_title(out)?;
        man.render_name_section(out)?;
        man.render_synopsis_section(out)?;
        man.render_description_section(out)?;
        man.render_subcommands_section(out)?;
        return Ok(words(out)?);
    };
    let command = tracer
        .find_subcommand(name)
        .ok_or_else(|| Failure::Usage(format!("no command `{name}`; try `tracer --help`")))?;
    let command = command.clone().version(env!("CARGO_PKG_VERSION"));
    Man::new(command).render(out)?;
    Ok(())
}

/// What options and output refer to: exit statuses, fates, causes.
fn words(out: &mut dyn Write) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in STATUS {
        item(&mut roff, status, meaning);
    }
    roff.control("SH", ["FATES"]);
    for fate in Fate::ALL {
        item(&mut roff, fate.name(), &format!("{}.", fate.meaning()));
    }
    item(&mut roff, "failed", "Every failure, whatever its fate.");
    roff.control("SH", ["CAUSES"]);
    roff.text([roman(
        "A word before the dot is a family: it stands for all its causes.",
    )]);
    for group in Group::ALL {
        roff.control("SS", [group.title()]);
        for row in Cause::ALL.iter().filter_map(|&cause| catalogue::row(cause)) {
            if row.group == group {
                item(&mut roff, row.cause.name(), row.summary);
            }
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(
        "tracer man COMMAND, tracer causes CAUSE, ipvsadm(8), conntrack(8)",
    )]);
    roff.to_writer(out)
}

fn item(roff: &mut Roff, name: &str, text: &str) {
    roff.control("TP", []);
    roff.text([bold(name)]);
    roff.text([roman(text)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(command: Option<&str>) -> Result<String, Failure> {
        let mut out = Vec::new();
        let options = ManOptions {
            command: command.map(str::to_owned),
        };
        write(&options, &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn the_page_explains_every_fate_and_cause() {
        let page = page(None).expect("a page");
        let names = Fate::ALL.iter().map(|fate| fate.name());
        for name in names.chain(Cause::ALL.iter().map(|cause| cause.name())) {
            assert!(page.contains(&name.replace('-', "\\-")), "{name}");
        }
    }

    #[test]
    fn every_command_has_a_page_with_its_options() {
        for command in args::command().get_subcommands() {
            let page = page(Some(command.get_name())).expect("a page");
            assert!(page.contains("SH OPTIONS"), "{page}");
        }
        assert!(page(Some("nonsense")).is_err());
    }
}
