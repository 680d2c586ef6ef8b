//! Rollouts: which device shall run what, decided purely ([`machine`]; [`waits`] says for whom it waits and
//! [`history`] what was run before), carried out thinly ([`driver`]), asked for by [`commands`] over HTTP ([`http`]).

pub mod commands;
pub mod driver;
pub mod history;
pub mod http;
pub mod machine;
pub mod waits;
