use super::Context;
pub async fn run(_c: Context, _p: ipnet::IpNet, _m: u8) {}
