//! Uploads by devices: see [`fleetloop_protocol::upload`] for what is asked and answered.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use fleetloop_protocol::upload::{self, SALT_HEADER};
use fleetloop_protocol::{DeviceId, Digest};

use super::device::Refused;
use crate::state::AppState;
use crate::store::StoreError;
use crate::store::uploads::{Incoming, UploadError};

/// `HEAD`: whether it is there.
pub(super) async fn has(
    State(state): State<AppState>,
    Extension(device): Extension<DeviceId>,
    Path(commitment): Path<String>,
) -> Result<StatusCode, Refused> {
    if state.uploads.has(&device, named(&commitment)?) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Refused::not_found("there is no such upload"))
    }
}

/// `PUT`: takes it.
pub(super) async fn put(
    State(state): State<AppState>,
    Extension(device): Extension<DeviceId>,
    Path(commitment): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Refused> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let len = header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    let len = len.ok_or_else(|| {
        let message = "an upload says its length".to_owned();
        Refused(StatusCode::LENGTH_REQUIRED, "length_required", message)
    })?;
    let salt = header(SALT_HEADER).and_then(upload::salt).ok_or_else(|| {
        let message = format!("an upload has its salt in the header {SALT_HEADER}");
        Refused(StatusCode::BAD_REQUEST, "invalid", message)
    })?;
    let upload = Incoming { device, commitment: named(&commitment)?, salt, len };
    state.uploads.put(&upload, body.into_data_stream(), state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn named(commitment: &str) -> Result<Digest, Refused> {
    commitment
        .parse()
        .map_err(|_| Refused::not_found("an upload is named by 64 hexadecimal digits"))
}

impl From<UploadError> for Refused {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::NoRoom | UploadError::Store(StoreError::Full { .. }) => {
                Self(StatusCode::INSUFFICIENT_STORAGE, "full", message)
            }
            UploadError::TooLarge { .. } => {
                Self(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            UploadError::Mismatch { .. } => Self(StatusCode::BAD_REQUEST, "mismatch", message),
            UploadError::Cut => Self(StatusCode::REQUEST_TIMEOUT, "cut", message),
            UploadError::Store(error) => error.into(),
        }
    }
}
