//! Which tables a store has. Pure: it reads no database. Invariant: what the migrations make is all there is, for none of them takes a table away.

/// The tables that these migrations make, in their order.
pub fn made_by(migrations: &[&'static str]) -> Vec<&'static str> {
    let lines = migrations.iter().flat_map(|sql| sql.lines());
    lines
        .filter_map(|line| line.strip_prefix("CREATE TABLE ")?.split_once(" ("))
        .map(|(name, _)| name)
        .collect()
}

/// What to say of a store without these.
pub fn lacking(name: &str, missing: &[String], way_out: &str) -> String {
    let (noun, verb) = if missing.len() == 1 { ("table", "is") } else { ("tables", "are") };
    format!(
        "database '{name}' lacks the {noun} {} of cloaca, which {verb} part of its schema version: it was restored in part, or somebody \
         dropped something; {way_out}",
        missing.iter().map(|table| format!("'{table}'")).collect::<Vec<_>>().join(", ")
    )
}
