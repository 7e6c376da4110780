//! What this coordinator can be asked, told to `grpcurl` and its like (`grpc.reflection`, both versions: older programs know only the first).

use blackstart_proto::DESCRIPTORS;
use tonic::service::Routes;
use tonic_reflection::server::Builder;

/// A question is a name.
const MAX_MESSAGE: usize = 1 << 10;

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// With the services that describe all of them. Descriptors that cannot be read cost those, and nobody's recovery.
pub(crate) fn add_to(services: Routes) -> Routes {
    let (v1, alpha) = match (builder().build_v1(), builder().build_v1alpha()) {
        (Ok(v1), Ok(alpha)) => (v1, alpha),
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "what can be asked is not described");
            return services;
        }
    };
    services
        .add_service(v1.max_decoding_message_size(MAX_MESSAGE))
        .add_service(alpha.max_decoding_message_size(MAX_MESSAGE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_in_can_be_read() {
        assert!(builder().build_v1().is_ok() && builder().build_v1alpha().is_ok());
    }
}
