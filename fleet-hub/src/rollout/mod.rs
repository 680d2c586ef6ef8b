//! Rollouts: which device shall run what, decided purely ([`machine`]), carried out thinly
//! ([`driver`]), asked for over HTTP ([`http`]).

pub mod driver;
pub mod http;
pub mod machine;
