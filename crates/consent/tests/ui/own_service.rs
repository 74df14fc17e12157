enum Mine {}

impl candor_consent::Service for Mine {
    const CODE: candor_wire::consent_record::ServiceCode = candor_wire::consent_record::ServiceCode::Backup;
}

fn main() {}
