use super::Context;
pub async fn run(_c: Context) {}
