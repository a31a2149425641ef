//! What a file of `pg_dump` says of itself.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use runbook_engine::error::StepError;

use super::probe::Table;

/// The list of what is in a dump, as `pg_restore --list` prints it.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    /// When it was begun, by the clock of whoever made it, which says no time zone: taken for ours.
    pub dumped_at: Timestamp,
    /// The database that it is of.
    pub database: String,
    text: String,
}

impl Listing {
    pub(super) fn parse(text: String) -> Result<Self, StepError> {
        let said = |what: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(';')?.trim().strip_prefix(what));
            line.map(|rest| rest.trim().to_owned()).ok_or_else(|| {
                StepError::gate(format!("the dump does not say `{what}`: it is none of `pg_dump`"))
            })
        };
        let created = said("Archive created at")?;
        let dumped_at = created
            .get(..19)
            .and_then(|text| DateTime::strptime("%Y-%m-%d %H:%M:%S", text).ok())
            .and_then(|at| at.to_zoned(TimeZone::system()).ok())
            .map(|at| at.timestamp())
            .ok_or_else(|| StepError::gate(format!("the dump says that it was created at `{created}`")))?;
        let database = said("dbname:")?;
        Ok(Self { dumped_at, database, text })
    }

    /// Whether the rows of a table are in it.
    pub(super) fn has(&self, Table { schema, name, owner }: &Table) -> bool {
        let entry = format!(" TABLE DATA {schema} {name} ");
        let entries = self.text.lines().filter(|line| !line.starts_with(';'));
        let rest = entries.filter_map(|line| line.split_once(&entry).map(|(_, rest)| rest));
        // A name may hold spaces: what follows is an owner, and not the rest of another table's name.
        rest.into_iter().any(|rest| !rest.contains(' ') || rest == owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = ";\n; Archive created at 2026-11-21 18:50:00 UTC\n;     dbname: app\n;     TOC Entries: 12\n;\n\
        215; 1259 16385 TABLE public Ring runbook\n3334; 0 16385 TABLE DATA public Ring runbook\n3335; 0 16386 TABLE DATA public a b runbook\n";

    #[test]
    fn a_list_is_read() {
        let listing = Listing::parse(LIST.to_owned()).unwrap();
        assert_eq!(listing.database, "app");
        let at = listing.dumped_at.to_zoned(TimeZone::system());
        assert_eq!(at.strftime("%F %T").to_string(), "2026-11-21 18:50:00");
        let table = |name: &str, owner: &str| Table {
            schema: "public".to_owned(),
            name: name.to_owned(),
            owner: owner.to_owned(),
        };
        for other in ["Rin", "RingRole", "a", "a b c"] {
            assert!(!listing.has(&table(other, "ada")), "{other}");
        }
        assert!(listing.has(&table("Ring", "ada")) && listing.has(&table("a b", "ada")));
        assert!(listing.has(&table("a", "b runbook")), "an owner of two words");
        assert!(Listing::parse("PGDMP".to_owned()).is_err());
    }
}
