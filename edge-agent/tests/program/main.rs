//! The built program on an enrolled device, without a hub.

mod alive;
mod damaged;
mod device;
mod hostile;
mod private;
mod quiet;
mod several;
