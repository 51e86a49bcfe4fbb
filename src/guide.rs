//! The guide: the pages of `docs/`, as modules.
//!
//! Each page is one file that is read both on GitHub and here, and its code is compiled and run with
//! the other tests. Start with [where to place the layer](placement) and [your client](clients); before
//! going to production, read [what happens when](what_happens) and [the limitations](limitations).
//!
//! | page | answers |
//! | --- | --- |
//! | [`placement`] | where in a stack does it go? |
//! | [`clients`] | how do I wrap my client: hyper-util, reqwest, tonic, an axum handler's? |
//! | [`integrations`] | what about kube, object_store, reqwest-middleware? |
//! | [`platforms`] | what is different on Cloud Run, GKE, a virtual machine, my laptop? |
//! | [`sources`] | which source for which environment? |
//! | [`local_development`] | what do I use on my laptop, where there is no metadata server? |
//! | [`testing`] | how do I test code that uses it? |
//! | [`observability`] | what do logs, metrics and a health check show? |
//! | [`custom_sources`] | how do I write my own source, with tests? |
//! | [`migration`] | what changes if I use something else now? |
//! | [`what_happens`] | what does a caller see when the metadata server, the machine, the API fails? |
//! | [`what_it_costs`] | what does a request, a token, a herd, a build cost? |
//! | [`fleet`] | what do thousands of processes do to a node? |
//! | [`limitations`] | what can it not do? |
//! | [`threat_model`] | what is defended against whom? |
//! | [`mtls_and_bound_tokens`] | why are they not implemented, and what would it take? |
//! | [`inside`] | how does it work? |
//!
//! Numbers such as `s025` are scenarios, each with a test of that number: [the list][reliability].
//!
//! [reliability]: https://github.com/tower-scoped-auth/tower-scoped-auth/blob/main/docs/reliability.md

/// One page. Its own link definitions stand at the end of the file, for GitHub. The first definition of
/// a name wins (CommonMark, 4.7), so here the names link to the items themselves.
macro_rules! page {
    ($name:ident, $file:literal) => {
        #[doc = include_str!("guide/links.md")]
        #[cfg_attr(feature = "metadata", doc = include_str!("guide/links_metadata.md"))]
        #[cfg_attr(feature = "emulator", doc = include_str!("guide/links_emulator.md"))]
        #[cfg_attr(feature = "test-util", doc = include_str!("guide/links_test_util.md"))]
        #[doc = include_str!(concat!("../docs/", $file))]
        pub mod $name {}
    };
}

page!(placement, "placement.md");
page!(clients, "clients.md");
page!(integrations, "integrations.md");
page!(platforms, "platforms.md");
page!(sources, "sources.md");
page!(local_development, "local-development.md");
page!(testing, "testing.md");
page!(observability, "observability.md");
page!(custom_sources, "custom-sources.md");
page!(migration, "migration.md");
page!(what_happens, "what-happens.md");
page!(what_it_costs, "what-it-costs.md");
page!(fleet, "fleet.md");
page!(limitations, "limitations.md");
page!(threat_model, "threat-model.md");
page!(mtls_and_bound_tokens, "mtls-and-bound-tokens.md");
page!(inside, "inside.md");
