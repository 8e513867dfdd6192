//! What every store does, whatever its database: scripts against the trait, and the traces they
//! must leave, byte for byte.
//!
//! A store's own tests call [`conformance!`] with an expression that makes a fresh [`Backend`].

pub mod chance;
mod dumps;
mod leases;
mod plans;
mod rows;
pub mod trace;

use async_trait::async_trait;

pub use self::dumps::*;
pub use self::leases::*;
pub use self::plans::*;
pub use self::rows::*;
use super::{Scope, Store};

/// A place for one store, empty at first.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The store in this place, as one more process would open it.
    fn open(&self, scope: Scope) -> Box<dyn Store>;
    /// Runs a statement behind the store's back.
    async fn sql(&self, statement: &str);
    /// The one value that a query finds, as text.
    async fn ask(&self, query: &str) -> String;
    /// Takes the store away, as if there had been none.
    async fn clear(&self);
}

macro_rules! conformance {
    ($backend:expr) => {
        conformance! { $backend,
            an_unwritten_store_reads_as_empty,
            one_holder_at_a_time,
            a_lease_that_is_not_current_writes_nothing,
            a_dead_holder_is_replaced_at_once,
            a_deployment_from_queue_to_rollback,
            a_forge_keeps_one_entry_a_step,
            a_step_is_pending_until_it_ends,
            a_dead_run_is_buried_with_what_it_left,
            a_saved_plan_knows_what_its_operations_left,
            an_operation_keeps_the_records_of_its_own_app,
            a_record_is_what_was_put_last,
            an_artifact_is_kept_until_it_is_forgotten,
            what_is_live_is_kept_where_an_older_norn_made_it,
            a_write_is_all_or_nothing,
            a_renamed_app_keeps_its_rows,
            a_store_is_of_one_project_and_stage,
            history_is_newest_first,
            the_lease_row_is_told,
            operations_of_an_address_are_newest_first,
            an_export_is_of_all_rows,
            an_import_is_what_was_exported,
            a_dump_is_written_under_a_current_lease_or_not_at_all,
            a_store_that_moved_is_refused_wherever_it_is_used,
        }
    };
    ($backend:expr, $($case:ident,)*) => {
        mod conformance {
            use super::*;
            $(
                #[tokio::test]
                async fn $case() {
                    $crate::state::conformance::$case(&$backend).await;
                }
            )*
        }
    };
}
pub(crate) use conformance;
