//! Logs go to standard error, one line an event, with its fields.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

#[derive(Debug, thiserror::Error)]
#[error("--log {filter:?} is not a level or a list of tracing directives")]
pub struct FilterError {
    filter: String,
    #[source]
    source: tracing_subscriber::filter::ParseError,
}

pub fn start(filter: &str) -> Result<(), FilterError> {
    let parsed =
        EnvFilter::builder().parse(filter).map_err(|source| FilterError { filter: filter.to_owned(), source })?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
