use core::marker::PhantomData;

fn main() {
    let _ = candor_consent::Grant::<candor_consent::Backup> {
        id: candor_wire::ids::StatementId::from_bytes([0; 32]),
        service: PhantomData,
    };
}
