//! The broker's hooks, and the kicking of sessions.

use async_trait::async_trait;
use fleetloop_protocol::DeviceId;
use fleetloop_protocol::api::devices::DeviceState;
use fleetloop_protocol::topic::{Kind, Topic};
use rmqtt::codec::v5::{PublishAckReason, SubscribeAckReason};
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType};
use rmqtt::types::{
    AuthResult, ConnectInfo, Id, ListenerId, Publish, PublishAclResult, PublishResult, QoS,
    Subscribe, SubscribeAclResult,
};
use tokio::sync::broadcast::{self, error::RecvError};

use super::relay::Secret;
use super::rules::Peer;
use super::way::Way;
use crate::state::HubEvent;
use crate::store::{Store, StoreError, devices};

/// The sessions of one listener.
#[derive(Clone)]
pub(super) struct Sessions {
    context: ServerContext,
    listener: ListenerId,
}

impl Sessions {
    pub(super) fn new(context: ServerContext, listener: ListenerId) -> Self {
        Self { context, listener }
    }

    /// Ends the session of that client id, if there is one.
    async fn kick(&self, client_id: &str) {
        let id = Id::new(
            self.context.node.id(),
            self.listener,
            None,
            None,
            client_id.to_owned().into(),
            None,
        );
        let entry = self.context.extends.shared().await.entry(id);
        if !entry.exist() {
            return;
        }
        let kicked = match entry.try_lock().await {
            Ok(mut entry) => entry.kick(true, true, true).await.map(drop),
            Err(error) => Err(error),
        };
        match kicked {
            Ok(()) => tracing::info!(client_id, "session ended"),
            Err(error) => tracing::warn!(client_id, %error, "cannot end a session"),
        }
    }

    /// Ends every session.
    pub(super) async fn kick_all(&self) {
        let names: Vec<String> = {
            let shared = self.context.extends.shared().await;
            shared.iter().map(|entry| entry.id().client_id.to_string()).collect()
        };
        futures::future::join_all(names.iter().map(|name| self.kick(name))).await;
    }

    /// Kicks whoever is revoked, as it happens; after a lag, everybody who is.
    pub(super) async fn kick_revoked(
        self,
        store: Store,
        mut events: broadcast::Receiver<HubEvent>,
    ) {
        loop {
            match events.recv().await {
                Ok(HubEvent::DeviceRevoked { device }) => self.kick(device.as_str()).await,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => match store.read(devices::list).await {
                    Ok(list) => {
                        for device in list.iter().filter(|d| d.state == DeviceState::Revoked) {
                            self.kick(device.id.as_str()).await;
                        }
                    }
                    Err(error) => tracing::error!(%error, "cannot look for revoked devices"),
                },
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// The hooks.
pub(super) struct Guard {
    pub(super) store: Store,
    pub(super) sessions: Sessions,
    pub(super) secret: Secret,
    pub(super) way: Way,
}

impl Guard {
    /// Whether that peer's message goes on. A device's message is held up here as long as its quota
    /// and the way to the hub ask for it; its session reads nothing more meanwhile, and nobody else
    /// waits.
    async fn publishes(&self, name: &str, publish: &Publish) -> PublishAclResult {
        let peer = Peer::named(name);
        if let Some(Peer::Device(device)) = &peer {
            self.way.pace(device, publish.topic.len() + publish.payload.len()).await;
        }
        if !peer.as_ref().is_some_and(|peer| peer.may_publish(&publish.topic, publish.retain)) {
            if self.way.may_log(peer.as_ref()) {
                tracing::warn!(peer = name, topic = %publish.topic, "refused to publish");
            }
            return PublishAclResult::rejected(false, None);
        }
        match peer {
            Some(Peer::Device(device)) if goes_to_hub(&publish.topic) => {
                if self.way.enter(&device).await { PublishAclResult::allow() } else { over_quota() }
            }
            _ => PublishAclResult::allow(),
        }
    }

    async fn is_enrolled(&self, device: &DeviceId) -> bool {
        let id = device.clone();
        let state = self
            .store
            .read(move |connection| devices::get(connection, &id).map(|device| device.state))
            .await;
        match state {
            Ok(state) => state == DeviceState::Enrolled,
            Err(StoreError::NotFound { .. }) => false,
            Err(error) => {
                // In doubt nobody is let in; the device tries again.
                tracing::error!(%device, error = &error as &dyn std::error::Error, "cannot look up a device");
                false
            }
        }
    }

    async fn admits(&self, connect: &ConnectInfo) -> bool {
        // The user name is the certificate's, for the relay wrote it there.
        if !self.secret.is(connect.password().map(AsRef::as_ref)) {
            tracing::warn!(from = ?connect.ipaddress(), "refused: a program on this machine came to the broker's private port");
            return false;
        }
        let name = connect.username().map(|name| &**name);
        let Some(peer) = Peer::claiming(name, connect.client_id()) else {
            tracing::warn!(client_id = %connect.client_id(), certificate = ?name, "refused: the client id is not the certificate's name");
            return false;
        };
        // The broker publishes a will without asking again.
        if let Some(will) = connect.last_will() {
            let may = Publish::try_from(will)
                .is_ok_and(|will| peer.may_publish(&will.topic, will.retain));
            if !may {
                tracing::warn!(?peer, "refused: the will is not the client's to publish");
                return false;
            }
        }
        let admitted = match &peer {
            Peer::Hub => true,
            Peer::Device(device) => self.is_enrolled(device).await,
        };
        if !admitted {
            tracing::warn!(?peer, "refused: not enrolled, or revoked");
        }
        admitted
    }
}

#[async_trait]
impl Handler for Guard {
    #[expect(elided_lifetimes_in_paths, reason = "async_trait binds a written one otherwise")]
    async fn hook(&self, parameter: &Parameter, acc: Option<HookResult>) -> ReturnType {
        match parameter {
            Parameter::ClientAuthenticate(connect) => {
                let result = if self.admits(connect).await {
                    AuthResult::Allow(false, None)
                } else {
                    AuthResult::NotAuthorized
                };
                (false, Some(HookResult::AuthResult(result)))
            }
            Parameter::ClientConnected(session) => {
                // Between being admitted and having a session it may have been revoked, and the
                // kick have found nobody. Not awaited: the session runs only after this hook.
                if let Some(Peer::Device(device)) = Peer::named(session.id.username_ref())
                    && !self.is_enrolled(&device).await
                {
                    let sessions = self.sessions.clone();
                    tokio::spawn(async move { sessions.kick(device.as_str()).await });
                }
                (true, acc)
            }
            Parameter::MessagePublishCheckAcl(session, publish) => {
                let answer = self.publishes(session.id.username_ref(), publish).await;
                (false, Some(HookResult::PublishAclResult(answer)))
            }
            // A message of a device that was on its way to the hub is there, or nowhere.
            Parameter::MessageAcked(session, from, _) => {
                self.way.arrived(&session.id, from);
                (true, acc)
            }
            Parameter::MessageDelivered(session, from, publish) => {
                // Of this kind no acknowledgement comes.
                if publish.qos == QoS::AtMostOnce {
                    self.way.arrived(&session.id, from);
                }
                (true, acc)
            }
            Parameter::SessionSubscribed(session, _) => {
                self.way.subscribed(&session.id);
                (true, acc)
            }
            Parameter::MessageDropped(to, from, _, _) => {
                self.way.dropped(to.as_ref(), from);
                (true, acc)
            }
            Parameter::ClientSubscribeCheckAcl(session, subscribe) => {
                let may = Peer::named(session.id.username_ref()).is_some_and(|peer| {
                    peer.may_subscribe(&subscribe.topic_filter, subscribe.is_shared())
                });
                if !may {
                    tracing::warn!(peer = session.id.username_ref(), filter = %subscribe.topic_filter, "refused to subscribe");
                }
                (false, Some(HookResult::SubscribeAclResult(subscribe_answer(may, subscribe))))
            }
            _ => (true, acc),
        }
    }
}

/// Results are for others; everything else that devices write is for the hub.
fn goes_to_hub(topic: &str) -> bool {
    Topic::parse(topic).is_ok_and(|topic| topic.kind != Kind::Result)
}

/// The device has no receipt and sends the message again; its session goes on.
fn over_quota() -> PublishAclResult {
    let reason = PublishAckReason::QuotaExceeded;
    PublishAclResult(PublishResult::reason_code(reason, Some("the hub is behind".into()), false))
}

fn subscribe_answer(may: bool, subscribe: &Subscribe) -> SubscribeAclResult {
    if may {
        SubscribeAclResult::new_success(subscribe.opts.qos(), None)
    } else {
        SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
    }
}
