terraform {
  backend "local" {
    path = "/scalr/run/terraform.tfstate"
  }
}
