//! Whose variables a page shows: the workspace or the environment that its path names, or the
//! account.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use serde_json::{Value, json};

use super::error::PageError;
use crate::app::App;
use crate::store::variable::{Scope, Variable};
use crate::store::{Connection, account, environment, workspace};

/// Who has variables.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// The workspace with this id.
    Workspace(String),
    /// The environment with this id.
    Environment(String),
    /// The account.
    Account,
}

impl FromRequestParts<App> for Owner {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, PageError> {
        let parameters = RawPathParams::from_request_parts(parts, app)
            .await
            .map_err(|_| PageError::NotFound("page"))?;
        let owner = parameters.iter().find_map(|(name, id)| match name {
            "workspace" => Some(Self::Workspace(id.to_owned())),
            "environment" => Some(Self::Environment(id.to_owned())),
            _ => None,
        });
        Ok(owner.unwrap_or(Self::Account))
    }
}

impl Owner {
    /// Who gets its variables.
    pub(super) fn scope(&self) -> Scope {
        match self {
            Self::Workspace(_) => Scope::Workspace,
            Self::Environment(_) => Scope::Environment,
            Self::Account => Scope::Account,
        }
    }

    /// Whether a variable is its own, and none that it inherits or passes on.
    pub(super) fn has(&self, variable: &Variable) -> bool {
        let (environment, workspace) =
            (variable.environment_id.as_ref(), variable.workspace_id.as_ref());
        match self {
            Self::Workspace(id) => workspace == Some(id),
            Self::Environment(id) => environment == Some(id) && workspace.is_none(),
            Self::Account => environment.is_none() && workspace.is_none(),
        }
    }

    /// Its own page.
    pub(super) fn path(&self) -> String {
        match self {
            Self::Workspace(id) => format!("/workspaces/{id}"),
            Self::Environment(id) => format!("/environments/{id}"),
            Self::Account => "/account".to_owned(),
        }
    }

    /// The part of the navigation that its pages belong to.
    pub(super) fn section(&self) -> &'static str {
        match self {
            Self::Workspace(_) | Self::Environment(_) => "workspaces",
            Self::Account => "account",
        }
    }

    /// What changes when it does.
    pub(super) fn topic(&self) -> Option<String> {
        match self {
            Self::Workspace(id) => Some(format!("workspace:{id}")),
            Self::Environment(_) => Some("environments".to_owned()),
            Self::Account => None,
        }
    }

    /// Its name.
    pub(super) async fn name(&self, db: &mut Connection) -> Result<String, PageError> {
        match self {
            Self::Workspace(id) => {
                let found = workspace::find(db, id).await?;
                Ok(found.ok_or(PageError::NotFound("workspace"))?.name)
            }
            Self::Environment(id) => {
                let found = environment::find(db, id).await?;
                Ok(found.ok_or(PageError::NotFound("environment"))?.name)
            }
            Self::Account => Ok("Account".to_owned()),
        }
    }

    /// The filters of the API that list its variables and no others.
    pub(super) fn filter(&self) -> String {
        match self {
            Self::Workspace(id) => format!("filter[workspace]={id}"),
            Self::Environment(id) => {
                format!("filter[environment]={id}&filter[workspace]=null")
            }
            Self::Account => "filter[environment]=null&filter[workspace]=null".to_owned(),
        }
    }

    /// The relationship that makes a new variable its own.
    pub(super) async fn relationship(&self, db: &mut Connection) -> Result<Value, PageError> {
        Ok(match self {
            Self::Workspace(id) => {
                json!({ "workspace": { "data": { "type": "workspaces", "id": id } } })
            }
            Self::Environment(id) => {
                json!({ "environment": { "data": { "type": "environments", "id": id } } })
            }
            Self::Account => {
                let account = account::only(db).await?.ok_or(PageError::NotFound("account"))?;
                json!({ "account": { "data": { "type": "accounts", "id": account.id } } })
            }
        })
    }
}
