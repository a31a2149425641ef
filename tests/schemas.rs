//! The schemas on disk are the ones the types give. `UPDATE=1 cargo test --test schemas` writes them.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

fn fresh(file: &str, schema: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schemas").join(file);
    let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let on_disk = fs::read_to_string(&path).unwrap_or_default();
    assert!(on_disk == text, "{} is not fresh: UPDATE=1 cargo test --test schemas", path.display());
}

#[test]
fn the_runbook_schema_is_fresh() {
    fresh("runbook.schema.json", &runbook_engine::schema::runbook(&runbook_steps::catalog::CATALOG));
}
