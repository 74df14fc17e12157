//! What a revocation names: where the heads of all vaults stand.

use candor_wire::DeviceId;
use candor_wire::chain::AccountView;
use candor_wire::revocation::{DeviceRevoked, HeadPin, REVOCATION_VERSION};
use candor_wire::statement::Body;

use super::AccountError;
use crate::api::Api;

/// The heads of all vaults that have one, as the cell shows them. Each is signed by a device that is or was of the
/// account; what else speaks against one is no reason to leave a device in.
pub(crate) async fn pins(api: &Api, view: &AccountView) -> Result<Vec<HeadPin>, AccountError> {
    let account = view.account();
    let key_of = |device: &_| {
        let entry = view.device(device);
        entry.map(|entry| entry.added.signing.ed25519())
    };
    let mut pins = Vec::new();
    for vault in view.vaults() {
        let Some(signed) = api.read_head(account, vault).await? else {
            continue;
        };
        let head = signed.verify(&account, &vault, key_of)?;
        pins.push(HeadPin {
            vault,
            counter: head.counter,
            hash: signed.hash(),
        });
    }
    Ok(pins)
}

/// The statement.
pub(crate) fn revocation(device: DeviceId, heads: Vec<HeadPin>) -> Body {
    Body::DeviceRevoked(Box::new(DeviceRevoked {
        version: REVOCATION_VERSION,
        device,
        heads,
    }))
}
