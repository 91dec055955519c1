"""The pages of the atlas."""

from django.urls import path
from django.views.decorators.cache import cache_page

from atlas import views

urlpatterns = [
    path("", cache_page(600)(views.home)),
    path("search/", cache_page(600)(views.search)),
    path("family/<slug:word>/", views.family),
    path("character/<int:code>/", views.character),
    path("api/character/<int:code>/", views.peek),
    path("banner/", views.banner),
    path("banner/<int:number>/", views.edit_banner),
    path("near/", views.near),
    path("enter/", views.enter),
    path("shelf/<int:number>/", views.shelf),
    path("census/", views.census),
]
