#!/bin/sh
SERVER_URL=""
