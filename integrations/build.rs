//! A gRPC service defined by hand, so that no protoc is needed: one method of each of the four call types.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let method = |name: &str, route: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type("crate::chat::Line")
            .output_type("crate::chat::Line")
            .codec_path("tonic_prost::ProstCodec")
    };
    let chat = Service::builder()
        .name("Chat")
        .package("integrations")
        .method(method("say", "Say").build())
        .method(method("listen", "Listen").server_streaming().build())
        .method(method("dictate", "Dictate").client_streaming().build())
        .method(
            method("talk", "Talk")
                .client_streaming()
                .server_streaming()
                .build(),
        )
        .build();
    Builder::new().compile(&[chat]);
}
