//! What a handler's arguments and its answer say about an operation.

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use service_kit::ApiError;
use service_kit::auth::{Internal, Principal};
use service_kit::extract::{Json, Path, Query};

use crate::operation::Operation;

/// Name of the security scheme of users.
pub const BEARER: &str = "bearer";
/// Name of the security scheme of the system's own services.
pub const INTERNAL: &str = "internal";

/// An argument of a handler.
pub trait Part {
    /// Adds what it reads, and how it refuses.
    fn describe(operation: &mut Operation<'_>);
}

/// What a handler answers.
pub trait Answers {
    /// Adds what it gives.
    fn describe(operation: &mut Operation<'_>);
}

/// A handler, whatever its arguments.
pub trait Handler<Arguments> {
    /// Adds everything that its type says.
    fn describe(operation: &mut Operation<'_>);
}

impl<S> Part for State<S> {
    fn describe(_: &mut Operation<'_>) {}
}

impl<T> Part for Extension<T> {
    fn describe(_: &mut Operation<'_>) {}
}

impl Part for HeaderMap {
    fn describe(_: &mut Operation<'_>) {}
}

impl Part for Request {
    fn describe(_: &mut Operation<'_>) {}
}

impl Part for Principal {
    fn describe(operation: &mut Operation<'_>) {
        operation.secured(BEARER);
        // The keys of tokens may be out of reach.
        operation.refuses(&[401, 503]);
    }
}

impl Part for Internal {
    fn describe(operation: &mut Operation<'_>) {
        operation.secured(INTERNAL);
        operation.refuses(&[401]);
    }
}

impl<T: Part> Part for Option<T> {
    fn describe(operation: &mut Operation<'_>) {
        T::describe(operation);
        operation.optionally_secured();
    }
}

impl<T: JsonSchema> Part for Json<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.reads::<T>();
        operation.refuses(&[400, 408, 413, 415, 422]);
    }
}

impl<T: JsonSchema> Part for Query<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.query::<T>();
        operation.refuses(&[400]);
    }
}

impl<T: JsonSchema> Part for Path<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.placeholder::<T>();
        operation.refuses(&[404]);
    }
}

impl<T: JsonSchema> Answers for Json<T> {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers::<T>(200);
    }
}

impl Answers for StatusCode {
    fn describe(operation: &mut Operation<'_>) {
        operation.answers_nothing(204);
    }
}

/// The type says nothing; the description has to.
impl Answers for Response {
    fn describe(_: &mut Operation<'_>) {}
}

/// A status or headers before the answer itself.
impl<H, A: Answers> Answers for (H, A) {
    fn describe(operation: &mut Operation<'_>) {
        A::describe(operation);
    }
}

impl<H, I, A: Answers> Answers for (H, I, A) {
    fn describe(operation: &mut Operation<'_>) {
        A::describe(operation);
    }
}

impl<A: Answers> Answers for Result<A, ApiError> {
    fn describe(operation: &mut Operation<'_>) {
        A::describe(operation);
        operation.refuses(&[500]);
    }
}

macro_rules! handlers {
    ($(($($argument:ident)*))*) => {$(
        impl<F, Answer, $($argument,)*> Handler<($($argument,)*)> for F
        where
            F: AsyncFn($($argument,)*) -> Answer,
            Answer: Answers,
            $($argument: Part,)*
        {
            fn describe(operation: &mut Operation<'_>) {
                $($argument::describe(operation);)*
                Answer::describe(operation);
            }
        }
    )*};
}

handlers! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E G)
}
