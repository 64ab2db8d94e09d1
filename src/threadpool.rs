//! stub
use crate::hub::core::Hub;
use crate::hub::record::Wake;
pub(crate) fn offload(_hub: &Hub, job: Box<dyn FnOnce() + Send>) -> Wake {
    job();
    Wake::Ready
}
