//! A query over a collection: its JSON form and the SQL it stands for.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::database::text_of;

/// The body of `POST …/query`. Members that are absent ask for nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Query {
    mode: Option<Mode>,
    filters: Map<String, Value>,
    sort: Vec<Sort>,
    text: Option<String>,
    limit: Option<u32>,
    offset: Option<u32>,
}

/// How filters compare: exactly when absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Mode {
    /// Exactly; the usual filter is on `id`, the document's id.
    ById,
    /// Without regard to the case of ASCII letters.
    ByIndexEq,
    /// By what the value begins with.
    PrefixScan,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sort {
    field: String,
    #[serde(default = "ascending")]
    ascending: bool,
}

fn ascending() -> bool {
    true
}

/// Why a query is refused.
pub(crate) enum Refusal {
    /// The store lacks this capability.
    NotSupported(&'static str),
    /// The query is malformed.
    Invalid(String),
}

/// Whether the name of a member may stand in SQL text: letters, digits, `_`.
fn is_field(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Query {
    /// Checks what the types cannot say.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.sort.len() > 1 {
            return Err(Refusal::NotSupported("query.sort.multi"));
        }
        let fields = self.filters.keys().chain(self.sort.iter().map(|sort| &sort.field));
        for field in fields {
            if !is_field(field) {
                return Err(Refusal::Invalid(format!("invalid field name: {field:?}")));
            }
        }
        match self.filters.iter().find(|(_, value)| !value.is_string()) {
            Some((field, _)) => Err(Refusal::Invalid(format!("the filter on {field} is not a string"))),
            None => Ok(()),
        }
    }

    /// SQL conditions, each beginning with ` AND `, and the values to bind, in order.
    pub(crate) fn conditions(&self) -> (String, Vec<String>) {
        let (mut sql, mut values) = (String::new(), Vec::new());
        for (field, value) in &self.filters {
            let member = if field == "id" { "documents.id".into() } else { text_of(field) };
            let value = value.as_str().unwrap_or_default();
            match self.mode {
                Some(Mode::ByIndexEq) => sql.push_str(&format!(" AND {member} = ? COLLATE NOCASE")),
                Some(Mode::PrefixScan) => {
                    sql.push_str(&format!(" AND substr({member}, 1, {}) = ?", value.chars().count()));
                }
                Some(Mode::ById) | None => sql.push_str(&format!(" AND {member} = ?")),
            }
            values.push(value.to_owned());
        }
        if let Some(text) = self.text.as_ref().filter(|text| !text.is_empty()) {
            sql.push_str(" AND instr(lower(body), lower(?)) > 0");
            values.push(text.clone());
        }
        (sql, values)
    }

    /// SQL after `ORDER BY`. Equal documents are ordered by id, so that pages never overlap.
    pub(crate) fn order(&self) -> String {
        match self.sort.first() {
            None => "documents.id".into(),
            Some(Sort { field, ascending }) => {
                let direction = if *ascending { "ASC" } else { "DESC" };
                let member = if field == "id" { "documents.id".into() } else { text_of(field) };
                format!("{member} {direction}, documents.id {direction}")
            }
        }
    }

    /// Limit (-1: none) and offset. As in the disk store, an offset past the end is taken back to the
    /// last document, so that paging on yields that one again and again.
    pub(crate) fn page(&self, total: i64) -> (i64, i64) {
        let limit = self.limit.map_or(-1, i64::from);
        let offset = self.offset.map_or(0, i64::from).min((total - 1).max(0));
        (limit, offset)
    }
}
