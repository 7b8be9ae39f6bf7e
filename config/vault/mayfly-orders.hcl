# What the token of a lease may do: read this one secret. Policy of the token role `mayfly-orders`.
path "database/creds/orders" {
  capabilities = ["read"]
}
