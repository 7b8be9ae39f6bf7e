# What the broker itself may do at Vault or OpenBao: nothing but make, look up, prolong and end what it makes.
# It reads no secret with its own token: each lease's token does that, under the policy of the token role (mayfly-orders.hcl).
#
#   bao policy write mayfly-broker config/vault/mayfly-broker.hcl
#
# Written for one secret: role `orders` of the database engine at `database`, by the token role `mayfly-orders`.
# For each further secret repeat what names these. No wildcard leads out of them.

# The token of each lease, by this role only. It cannot choose policies, a parent, an id or a number of uses.
path "auth/token/create/mayfly-orders" {
  capabilities        = ["update"]
  required_parameters = ["display_name", "ttl", "explicit_max_ttl"]
  allowed_parameters = {
    "display_name"      = ["mayfly_*"]
    "ttl"               = []
    "explicit_max_ttl"  = []
    "renewable"         = []
    "no_default_policy" = [true]
    "meta"              = []
  }
}

# Tokens by their accessor, which only those know who made them: it ends and prolongs, and does not read.
path "auth/token/lookup-accessor" {
  capabilities = ["update"]
}
path "auth/token/renew-accessor" {
  capabilities = ["update"]
}
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}

# The leases of this secret, by id.
path "sys/leases/lookup" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["database/creds/orders/*"] }
}
path "sys/leases/renew" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["database/creds/orders/*"], "increment" = [] }
}
path "sys/leases/revoke" {
  capabilities       = ["update"]
  allowed_parameters = { "lease_id" = ["database/creds/orders/*"], "sync" = [] }
}

# Which leases of this secret there are (a list needs sudo on exactly this path), and which the server has given up on.
path "sys/leases/lookup/database/creds/orders/" {
  capabilities = ["list", "sudo"]
}
path "sys/leases" {
  capabilities = ["read", "sudo"]
}

# Its own token and its own rights.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
path "sys/capabilities-self" {
  capabilities = ["update"]
}
